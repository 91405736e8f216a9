package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"hailoclip/pipeline/fair"
)

// Bounds of a prompt file. The length of a prompt is bounded as that of requests is.
const (
	maxPromptLine  = 1 << 20 // with the spaces around it
	maxPromptLines = 1_000_000
)

// busyPause is how long Precompute gives way when requests fill the line.
const busyPause = 100 * time.Millisecond

// Precompute makes sure that the prompts of Config.PromptFile are remembered, and returns how
// many there are; in mode ondemand it does nothing. It encodes one batch at a time, so that
// requests wait for no more than that, and blocks until all is done: run it beside the service.
// Prompts beyond cache_max_entries are on disk only. A prompt may have maxBytes bytes. Errors: those of
// the file, and of Get but ErrBusy.
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
		switch _, err := t.rows(ctx, fair.Caller{}, part); {
		case err == nil:
			done += len(part)
		case !errors.Is(err, ErrBusy):
			return done, err
		default:
			select {
			case <-time.After(busyPause):
			case <-ctx.Done():
				return done, context.Cause(ctx)
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

// readPrompts reads a text file with one prompt a line. Spaces around a prompt and empty lines
// do not count.
func readPrompts(path string, maxBytes int) ([]string, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var prompts []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxPromptLine)
	n := 0
	for lines.Scan() {
		n++
		prompt := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff")) // some editors begin files with it
		switch {
		case prompt == "":
			continue
		case !utf8.ValidString(prompt):
			return nil, fmt.Errorf("%s:%d: not UTF-8", path, n)
		case len(prompt) > maxBytes:
			return nil, fmt.Errorf("%s:%d: a prompt is longer than %d bytes", path, n, maxBytes)
		case len(prompts) == maxPromptLines:
			return nil, fmt.Errorf("%s: more than %d prompts", path, maxPromptLines)
		}
		prompts = append(prompts, prompt)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s:%d: a prompt is longer than %d bytes", path, n+1, maxBytes)
	}
	return prompts, lines.Err()
}
