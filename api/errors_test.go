package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hailoclip/api/stream/source"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// TestEverySentinelHasAKind reads the sources of the packages whose errors a handler can
// meet, and fails on a sentinel that nobody has given a status.
func TestEverySentinelHasAKind(t *testing.T) {
	elsewhere := []string{"cache.ErrLocked", "cache.ErrDamaged", "clip.ErrRevision"} // of commands, and of what shares sets
	table := must(os.ReadFile("errors.go"))
	sentinel := regexp.MustCompile(`(?m)^(?:var|\t)\s*(Err\w+)\s+=`)
	found := 0
	for _, folder := range []string{"../pipeline", "../hailo", "../cache", "../stages", "../stages/decode", "../stages/resize", "../stages/clip", "stream", "stream/event", "stream/source", "rawjson", "compat"} {
		for _, file := range must(filepath.Glob(folder + "/*.go")) {
			for _, match := range sentinel.FindAllSubmatch(must(os.ReadFile(file)), -1) {
				name := filepath.Base(folder) + "." + string(match[1])
				found++
				if bytes.Contains(table, []byte("\t{"+name+", ")) == slices.Contains(elsewhere, name) {
					t.Errorf("%s: add it to kinds in errors.go, or else to this list", name)
				}
			}
		}
	}
	if found != len(kinds)-2+len(elsewhere) { // two are of package context
		t.Errorf("%d sentinels for %d rows", found, len(kinds))
	}
	for _, k := range kinds {
		if got := outcomeOf(fmt.Errorf("somewhere: %w", k.err)); got.code != k.code || got.status != k.status {
			t.Errorf("%v, wrapped, becomes %s, not %s", k.err, got.code, k.code)
		}
	}
}

// TestImageFaults: what package clip takes for the image's own fault is answered so, by the same code, and nothing else is.
func TestImageFaults(t *testing.T) {
	for _, k := range kinds {
		code, want := clip.ImageFault(fmt.Errorf("somewhere: %w", k.err)), ""
		if errors.Is(k.err, source.ErrNoImages) { // of what a stream sends, which no image came of
			continue
		}
		if k.code == "invalid_image" || k.code == "image_too_large" || k.code == "unsupported_image" {
			want = k.code
		}
		if code != want {
			t.Errorf("%v: %q, want %q", k.err, code, want)
		}
	}
}

// everyKind returns all that errors.go has.
func everyKind(t testing.TB) (all []kind) {
	t.Helper()
	source := must(os.ReadFile("errors.go"))
	for _, m := range regexp.MustCompile(`&kind\{(\d+), "(\w+)", (".*"|\w+), (\d+)\}`).FindAllStringSubmatch(string(source), -1) {
		all = append(all, kind{must(strconv.Atoi(m[1])), m[2], strings.Trim(m[3], `"`), must(strconv.Atoi(m[4]))})
	}
	if n := bytes.Count(source, []byte("&kind{")); n != len(all) || n == 0 {
		t.Fatalf("%d kinds of %d", len(all), n)
	}
	return all
}

func TestOutcomes(t *testing.T) {
	for _, k := range everyKind(t) {
		wait := k.status == 429 || k.status == 503 || k.code == "prompt_set_not_ready"
		if k.status < 400 || k.status > 599 || k.code == "" || wait != (k.retry > 0) || k.status == 500 && k.text == "" {
			t.Errorf("%+v: no status of an error, no code, a wrong Retry-After, or the text of an internal error", k)
		}
	}
	cases := []struct {
		name       string
		err        error
		code, text string
	}{
		{"unknown", errors.New("/etc/secret"), "internal_error", internalSentence},
		{"after a beginning", fmt.Errorf("encoding 2 prompts: %w", hailo.ErrDeviceLost), "unavailable", "The encoder is not available: encoding 2 prompts: device lost"},
		{"capital", fmt.Errorf("%w: no bytes", decode.ErrNotImage), "invalid_image", "Not an image: no bytes"},
		{"a text and not an image", fmt.Errorf("%w: %w", clip.ErrEncodeText, hailo.ErrEncode), "encode_failed", "Failed to encode text"},
		{"a field's name stays", fail(errInvalidRequest, "top_k is wrong"), "invalid_request", "top_k is wrong"},
		{"why the deadline ended", fmt.Errorf("%w: %w", pipeline.ErrDeadline, errStopping), "stopping", "The service is stopping"},
		{"deadline", fmt.Errorf("%w: %w", pipeline.ErrDeadline, context.DeadlineExceeded), "deadline_exceeded", "The deadline passed before the answer was ready"},
		{"a panic", &pipeline.PanicError{Stage: "x", Value: "secret"}, "internal_error", internalSentence},
	}
	for _, c := range cases {
		if o := outcomeOf(c.err); o.code != c.code || o.text != c.text {
			t.Errorf("%s: got %+v", c.name, o)
		}
	}
}
