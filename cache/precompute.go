package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"hailoclip/pipeline/fair"
)

const maxPromptFile = 64 << 20 // bytes

// Precompute makes sure that the prompts of Config.PromptFile are remembered, and returns how many there are; in mode
// ondemand it does nothing. It encodes one batch at a time, so that requests wait for no more than that, gives way while
// they fill the line, and blocks until all is done: run it beside the service. Prompts beyond cache_max_entries are on
// disk only. A prompt may have maxBytes bytes. Errors: those of the file, and of Get but ErrBusy.
func (t *TextEmbeddings) Precompute(ctx context.Context, maxBytes int) (int, error) {
	config := t.store.config
	if config.Mode != Precomputed || config.PromptFile == "" {
		return 0, nil
	}
	prompts, err := readPrompts(config.PromptFile, maxBytes)
	if err != nil {
		return 0, err
	}
	for done := 0; done < len(prompts); {
		part := prompts[done:min(done+t.encoder.Batch, len(prompts))]
		_, err := t.rows(ctx, fair.Caller{}, part)
		if err == nil {
			done += len(part)
		} else if !errors.Is(err, ErrBusy) {
			return done, err
		} else {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done(): // rows says so
			}
		}
	}
	return len(prompts), nil
}

// CheckPrompts says what is wrong with mode precomputed: nothing would be remembered, or the file is missing
// or bad. A prompt may have maxBytes bytes. It reads the file.
func CheckPrompts(c Config, maxBytes int) error {
	switch {
	case c.Mode != Precomputed:
		return nil
	case !c.CacheEnabled:
		return errors.New("text_embedding.mode: precomputed remembers nothing while cache_enabled is false")
	case c.PromptFile == "":
		return errors.New("text_embedding.mode: precomputed needs a prompt_file")
	}
	if _, err := readPrompts(c.PromptFile, maxBytes); err != nil {
		return fmt.Errorf("text_embedding.prompt_file: %w", err)
	}
	return nil
}

// readPrompts reads a text file with one prompt a line. Spaces around a prompt and empty lines do not count.
func readPrompts(path string, maxBytes int) (prompts []string, err error) {
	stat, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() || stat.Size() > maxPromptFile { // a pipe would block
		return nil, fmt.Errorf("%s: not a regular file, or longer than %d bytes", path, maxPromptFile)
	}
	content, err := os.ReadFile(path)
	n := 0
	for line := range bytes.Lines(content) {
		n++
		prompt := string(bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))) // some editors begin files with it
		switch {
		case prompt == "":
			continue
		case !utf8.ValidString(prompt):
			return nil, fmt.Errorf("%s:%d: not UTF-8", path, n)
		case len(prompt) > maxBytes:
			return nil, fmt.Errorf("%s:%d: a prompt is longer than %d bytes", path, n, maxBytes)
		}
		prompts = append(prompts, prompt)
	}
	return prompts, err
}
