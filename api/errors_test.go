package api

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/cache"
	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// TestEverySentinelHasAnOutcome reads the sources of the packages whose errors a handler can
// meet, and fails on a sentinel that nobody has given a status.
func TestEverySentinelHasAnOutcome(t *testing.T) {
	known := map[string]error{
		"pipeline.ErrQueueFull": pipeline.ErrQueueFull, "pipeline.ErrDeadline": pipeline.ErrDeadline,
		"pipeline.ErrClosed": pipeline.ErrClosed, "pipeline.ErrSuperseded": pipeline.ErrSuperseded,
		"decode.ErrNotImage": decode.ErrNotImage, "decode.ErrTruncated": decode.ErrTruncated, "decode.ErrCorrupt": decode.ErrCorrupt,
		"decode.ErrUnsupportedFormat": decode.ErrUnsupportedFormat, "decode.ErrTooManyPixels": decode.ErrTooManyPixels,
		"decode.ErrTooMuchMemory": decode.ErrTooMuchMemory, "decode.ErrBusy": decode.ErrBusy, "resize.ErrTooExtreme": resize.ErrTooExtreme,
		"cache.ErrBusy": cache.ErrBusy, "cache.ErrClosed": cache.ErrClosed, "cache.ErrEncode": cache.ErrEncode,
		"cache.ErrLocked": cache.ErrLocked, "cache.ErrDamaged": cache.ErrDamaged,
		"api.errMalformed": errMalformed, "api.errInvalidJSON": errInvalidJSON, "api.errInvalidRequest": errInvalidRequest,
		"api.errInvalidImage": errInvalidImage, "api.errInvalidPrompts": errInvalidPrompts, "api.errNotFound": errNotFound,
		"api.errMethod": errMethod, "api.errReadTimeout": errReadTimeout, "api.errBodyTooLarge": errBodyTooLarge,
		"api.errMediaType": errMediaType, "api.errBodyMemory": errBodyMemory, "api.errHeaderTooLarge": errHeaderTooLarge, "api.errNotReady": errNotReady,
		"api.errStopping": errStopping, "api.errTooManyConns": errTooManyConns, "api.errEncodeText": errEncodeText,
		"api.errGone": errGone, "api.errOrigin": errOrigin, "api.errHost": errHost,
		"api.errNotFinite": errNotFinite, "api.errInternalFailure": errInternalFailure,
	}
	found := 0
	for _, folder := range []string{"../pipeline", "../cache", "../stages/decode", "../stages/resize", "."} {
		for _, name := range sentinels(t, folder) {
			found++
			err, ok := known[name]
			if !ok {
				t.Errorf("%s is not known here: add it to this list and to outcomes in errors.go", name)
				continue
			}
			if listed := outcomeFor(err); listed == nil {
				t.Errorf("%s has no outcome in errors.go", name)
			} else if got := outcomeOf(fmt.Errorf("somewhere: %w", err)); got.code != listed.code {
				t.Errorf("%s, wrapped, becomes %s, not %s", name, got.code, listed.code)
			}
		}
	}
	if found != len(known) {
		t.Errorf("%d sentinels in the sources, %d in the list", found, len(known))
	}
}

func outcomeFor(err error) *outcome {
	for i := range outcomes {
		if errors.Is(outcomes[i].err, err) {
			return &outcomes[i]
		}
	}
	return nil
}

// sentinels are the package-level variables of a folder whose names begin with Err or err.
func sentinels(t *testing.T, folder string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", folder, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if own := folder == "."; strings.HasPrefix(name.Name, "Err") || own && strings.HasPrefix(name.Name, "err") {
						names = append(names, parsed.Name.Name+"."+name.Name)
					}
				}
			}
		}
	}
	return names
}

func TestOutcomes(t *testing.T) {
	for _, o := range outcomes {
		if o.status < 400 || o.status > 599 || o.code == "" {
			t.Errorf("%+v", o)
		}
		if wait := o.status == 429 || o.status == 503; wait != (o.retry > 0) {
			t.Errorf("%s: status %d, Retry-After %d", o.code, o.status, o.retry)
		}
		if o.status == 500 && o.text == "" {
			t.Errorf("%s shows the text of an internal error", o.code)
		}
	}
	cases := []struct {
		name string
		err  error
		code string
		text string
	}{
		{"unknown", errors.New("/etc/secret"), "internal_error", internalSentence},
		{"capital", fmt.Errorf("%w: no device", hailo.ErrDeviceLost), "unavailable", "The encoder is not available: device lost: no device"},
		{"a field's name stays", fail(errInvalidRequest, "top_k is wrong"), "invalid_request", "top_k is wrong"},
		{"why the deadline ended", fmt.Errorf("%w: %w", pipeline.ErrDeadline, errStopping), "stopping", "The service is stopping"},
		{"deadline", fmt.Errorf("%w: %w", pipeline.ErrDeadline, context.DeadlineExceeded), "deadline_exceeded", "The deadline passed before the answer was ready"},
		{"a panic", &pipeline.PanicError{Stage: "x", Value: "secret"}, "internal_error", internalSentence},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if o := outcomeOf(c.err); o.code != c.code || o.text != c.text {
				t.Errorf("got %+v", o)
			}
		})
	}
}
