package api

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo"
	"hailoclip/pipeline"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// TestEverySentinelHasAnOutcome reads the sources of the packages whose errors a handler can
// meet, and fails on a sentinel that nobody has given a status.
func TestEverySentinelHasAnOutcome(t *testing.T) {
	elsewhere := []string{"cache.ErrLocked", "cache.ErrDamaged"} // of commands
	table := listed(t)
	if len(table) != len(outcomes) {
		t.Fatalf("%d rows read, there are %d", len(table), len(outcomes))
	}
	for _, folder := range []string{"../pipeline", "../hailo", "../cache", "../stages", "../stages/decode", "../stages/resize", "../stages/clip", "."} {
		for _, name := range sentinels(t, folder) {
			if slices.Contains(table, name) == slices.Contains(elsewhere, name) {
				t.Errorf("%s: add it to outcomes in errors.go, or else to this list", name)
			}
		}
	}
	for _, o := range outcomes {
		if got := outcomeOf(fmt.Errorf("somewhere: %w", o.err)); got.code != o.code || got.status != o.status {
			t.Errorf("%v, wrapped, becomes %s, not %s", o.err, got.code, o.code)
		}
	}
}

// parse calls f for every variable of the packages in a folder.
func parse(t *testing.T, folder string, f func(pkg string, names []*ast.Ident, values []ast.Expr)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources in %s: %v", folder, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed := must(parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution))
		for _, decl := range parsed.Decls {
			if vars, ok := decl.(*ast.GenDecl); ok && vars.Tok == token.VAR {
				for _, spec := range vars.Specs {
					f(parsed.Name.Name, spec.(*ast.ValueSpec).Names, spec.(*ast.ValueSpec).Values)
				}
			}
		}
	}
}

// sentinels are the package-level variables of a folder whose names begin with Err, or here with err.
func sentinels(t *testing.T, folder string) (found []string) {
	t.Helper()
	parse(t, folder, func(pkg string, names []*ast.Ident, _ []ast.Expr) {
		for _, name := range names {
			if strings.HasPrefix(name.Name, "Err") || folder == "." && strings.HasPrefix(name.Name, "err") {
				found = append(found, pkg+"."+name.Name)
			}
		}
	})
	return found
}

// listed are the errors of outcomes as they are written there.
func listed(t *testing.T) (found []string) {
	t.Helper()
	parse(t, ".", func(pkg string, names []*ast.Ident, values []ast.Expr) {
		if names[0].Name != "outcomes" {
			return
		}
		for _, row := range values[0].(*ast.CompositeLit).Elts {
			switch e := row.(*ast.CompositeLit).Elts[0].(type) {
			case *ast.Ident:
				found = append(found, pkg+"."+e.Name)
			case *ast.SelectorExpr:
				found = append(found, e.X.(*ast.Ident).Name+"."+e.Sel.Name)
			}
		}
	})
	return found
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
		{"after a beginning", fmt.Errorf("encoding 2 prompts: %w", hailo.ErrDeviceLost), "unavailable", "The encoder is not available: encoding 2 prompts: device lost"},
		{"capital", fmt.Errorf("%w: no bytes", decode.ErrNotImage), "invalid_image", "Not an image: no bytes"},
		{"a text and not an image", fmt.Errorf("%w: %w", clip.ErrEncodeText, hailo.ErrEncode), "encode_failed", "Failed to encode text"},
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
