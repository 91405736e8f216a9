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

// Precompute makes sure that the prompts of Config.PromptFile are remembered, and returns how many there are; in mode
// ondemand it does nothing. It encodes one batch at a time, so that requests wait for no more than that, gives way while
// they fill the line, and blocks until all is done: run it beside the service. Prompts beyond cache_max_entries are on
// disk only. A prompt may have maxBytes bytes. Errors: those of CheckPrompts, and of Get but ErrBusy.
func (t *TextEmbeddings) Precompute(ctx context.Context, maxBytes int) (int, error) {
	prompts, err := readPrompts(t.store.config, maxBytes)
	done := 0
	for err == nil && done < len(prompts) {
		part := prompts[done:min(done+t.encoder.Batch, len(prompts))]
		if _, err = t.rows(ctx, fair.Caller{}, part); err == nil {
			done += len(part)
		} else if errors.Is(err, ErrBusy) {
			time.Sleep(100 * time.Millisecond)
			err = nil
		}
	}
	return done, err
}

// CheckPrompts says what is wrong with mode precomputed: nothing would be remembered, or the file is missing
// or bad. A prompt may have maxBytes bytes. It reads the file.
func CheckPrompts(c Config, maxBytes int) error {
	_, err := readPrompts(c, maxBytes)
	return err
}

// readPrompts reads the prompts of mode precomputed, a text file with one a line. Spaces around a prompt and empty lines
// do not count.
func readPrompts(c Config, maxBytes int) (prompts []string, err error) {
	switch {
	case c.Mode != Precomputed:
		return nil, nil
	case !c.CacheEnabled:
		return nil, errors.New("text_embedding.mode: precomputed remembers nothing while cache_enabled is false")
	case c.PromptFile == "":
		return nil, errors.New("text_embedding.mode: precomputed needs a prompt_file")
	}
	where, n := "text_embedding.prompt_file: "+c.PromptFile, 0
	if stat, err := os.Stat(c.PromptFile); err == nil && !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", where) // a pipe would block
	}
	content, err := os.ReadFile(c.PromptFile)
	if err != nil {
		return nil, fmt.Errorf("text_embedding.prompt_file: %w", err)
	}
	for line := range bytes.Lines(content) {
		n++
		prompt := string(bytes.TrimSpace(bytes.TrimPrefix(line, []byte("\ufeff")))) // some editors begin files with it
		switch {
		case prompt == "":
			continue
		case !utf8.ValidString(prompt):
			return nil, fmt.Errorf("%s:%d: not UTF-8", where, n)
		case len(prompt) > maxBytes:
			return nil, fmt.Errorf("%s:%d: a prompt is longer than %d bytes", where, n, maxBytes)
		}
		prompts = append(prompts, prompt)
	}
	return prompts, err
}
