package clip

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"hailoclip/cache"
	"hailoclip/hailo/safefile"
)

// Bounds of a prompt file.
const (
	maxPromptLine = 1 << 20 // bytes, with the spaces around the prompt
	maxPrompts    = 1_000_000
)

// ReadPrompts returns the prompts of text_embedding.prompt_file in mode precomputed, none in mode ondemand. The file is
// UTF-8 text with a prompt a line; spaces around it and empty lines do not count. A prompt may have maxBytes bytes.
// The error says what is wrong with the file, or that nothing would be remembered.
func ReadPrompts(c cache.Config, maxBytes int) (prompts []string, err error) {
	switch {
	case c.Mode != cache.Precomputed:
		return nil, nil
	case !c.CacheEnabled:
		return nil, errors.New("text_embedding.mode: precomputed remembers nothing while cache_enabled is false")
	case c.PromptFile == "":
		return nil, errors.New("text_embedding.mode: precomputed needs a prompt_file")
	}
	where, n := "text_embedding.prompt_file: "+c.PromptFile, 0
	f, err := safefile.OpenRegular(c.PromptFile)
	if errors.Is(err, safefile.ErrNotRegular) {
		return nil, fmt.Errorf("%s: not a regular file", where)
	} else if err != nil {
		return nil, fmt.Errorf("text_embedding.prompt_file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxPromptLine)
	for lines.Scan() {
		n++
		prompt := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff")) // some editors begin files with it
		switch {
		case prompt == "":
			continue
		case !utf8.ValidString(prompt):
			return nil, fmt.Errorf("%s:%d: not UTF-8", where, n)
		case len(prompt) > maxBytes:
			return nil, fmt.Errorf("%s:%d: a prompt is longer than %d bytes", where, n, maxBytes)
		case len(prompts) == maxPrompts:
			return nil, fmt.Errorf("%s: more than %d prompts", where, maxPrompts)
		}
		prompts = append(prompts, prompt)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s:%d: a line is longer than %d bytes", where, n+1, maxPromptLine)
	} else if lines.Err() != nil {
		return nil, fmt.Errorf("%s:%d: %w", where, n+1, lines.Err())
	}
	return prompts, nil
}

// Precompute makes sure that the cache has the vectors of prompts for the first text encoder, and returns for how many it has.
// It encodes one batch at a time, so that requests wait for no more than that; while they wait for the encoder, they have every
// second turn. It blocks until all is done: run it beside the service. Vectors beyond cache_max_entries are on disk only.
// Errors: those of cache.TextEmbeddings.Await.
func (e *Engine) Precompute(ctx context.Context, prompts []string) (done int, err error) {
	batch := e.parts.Texts[0].Info().TextBatch
	for err == nil && done < len(prompts) {
		part := prompts[done:min(done+batch, len(prompts))]
		if err = e.texts[0].Remember(ctx, part); err == nil {
			done += len(part)
		}
	}
	return done, err
}
