// Package assert has the checks that the tests below hailo share. Those whose name begins with Must end the test, which
// only its own goroutine may do; the others report and go on. All args are a format of package fmt and its operands.
package assert

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// True reports the message unless ok.
func True(t testing.TB, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Errorf(format, args...)
	}
}

// MustTrue ends the test with the message unless ok.
func MustTrue(t testing.TB, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Fatalf(format, args...)
	}
}

// Equal reports values that differ.
func Equal[T comparable](t testing.TB, got, want T, what ...any) {
	t.Helper()
	if got != want {
		t.Errorf("%sgot %v, want %v", prefix(what), got, want)
	}
}

// Diff reports where values differ that cannot be compared with ==.
func Diff(t testing.TB, want, got any, what ...any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s-want +got:\n%s", prefix(what), diff)
	}
}

// NoError reports an error.
func NoError(t testing.TB, err error, what ...any) {
	t.Helper()
	if err != nil {
		t.Errorf("%s%v", prefix(what), err)
	}
}

// Must ends the test at an error.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Error reports that there is no error.
func Error(t testing.TB, err error, what ...any) {
	t.Helper()
	if err == nil {
		t.Errorf("%swant an error", prefix(what))
	}
}

// ErrorIs reports an err that is not want, which may be nil.
func ErrorIs(t testing.TB, err, want error, what ...any) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%sgot %v, want %v", prefix(what), err, want)
	}
}

// ErrorSays reports an err that is nil, is not want, unless that is nil, or does not say these words.
func ErrorSays(t testing.TB, err, want error, words string, what ...any) {
	t.Helper()
	if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		t.Errorf("%sgot %v, want %v that says %q", prefix(what), err, want, words)
	}
}

// Says reports an err that does not say these words; without words there must be none.
func Says(t testing.TB, err error, words string, what ...any) {
	t.Helper()
	if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
		t.Errorf("%sgot %v, want %q in it", prefix(what), err, words)
	}
}

// Value is the value of a call that cannot fail in a sound test; it panics at an error.
func Value[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Err is the error of a call whose value does not matter.
func Err[T any](_ T, err error) error { return err }

func prefix(what []any) string {
	if len(what) == 0 {
		return ""
	}
	return fmt.Sprintf(what[0].(string), what[1:]...) + ": "
}
