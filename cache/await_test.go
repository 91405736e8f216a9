package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"hailoclip/pipeline/fair"
)

func TestAwait(t *testing.T) {
	s, te, f := openAll(t, testConfig(), t.TempDir())
	prompts := append(promptList("cat", 100), "猫", "a photo of a cat 3")
	for range 2 {
		p, err := te.Await(t.Context(), fair.Caller{}, prompts)
		if err != nil {
			t.Fatal(err)
		}
		checkPrompts(t, te, p, prompts)
		s.lists.cache.Wait()
	}
	if p, err := te.Await(t.Context(), fair.Caller{}, nil); err != nil || len(p.Rows) != 0 {
		t.Errorf("nothing: %+v, %v", p, err)
	}
	if stats := s.Stats(); f.count() != 101 || stats.ListHits != 1 || stats.Pending != 0 {
		t.Errorf("%d encoded: %+v", f.count(), stats)
	}
}

// TestPatientPromptsAreNeverRefused: not by a full queue, nor by callers who have less waiting. They do not fill it either.
func TestPatientPromptsAreNeverRefused(t *testing.T) {
	config := memoryOnly()
	config.MaxPending = 1
	blocked(t, config, func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		first := goGet(t.Context(), te, "first", "first")
		waits := goGet(t.Context(), te, "waits", "waits")
		patient := goAwait(t.Context(), te, "patient", promptList("cat", 100)...)
		more := goAwait(t.Context(), te, "patient too", promptList("dog", 100)...)
		if n := s.Stats().Pending; n != 1+8+8 {
			t.Errorf("%d prompts wait, want one, and two batches of each of the patient", n)
		}
		ends(t, ErrBusy, goGet(t.Context(), te, "refused", "refused"))
		f.step()
		fits := goGet(t.Context(), te, "fits", "fits") // "waits" is being encoded; those who are patient do not count
		still(t, fits)
		close(f.gate)
		ends(t, nil, first, waits, fits, patient, more)
		if stats := s.Stats(); stats.Pending != 0 || stats.Busy != 1 || s.counts.patient.Load() != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

// TestPatientPromptsHaveEverySecondTurn: neither they nor the others wait for all of the rest.
func TestPatientPromptsHaveEverySecondTurn(t *testing.T) {
	blocked(t, memoryOnly(), func(t *testing.T, _ *Store, te *TextEmbeddings, f *fakeEncoder) {
		first := goGet(t.Context(), te, "first", "first")
		patient := goAwait(t.Context(), te, "patient", promptList("cat", 8)...)
		greedy := goGet(t.Context(), te, "greedy", promptList("dog", 100)...)
		modest := goAwait(t.Context(), te, "modest", "modest")
		f.step()
		if n := strings.Count(strings.Join(f.order[1:], "|"), "dog"); n != 2 || !slices.Contains(f.order, "modest") {
			t.Errorf("the first batch is %q", f.order[1:])
		}
		for range 5 { // nine in every second place of four
			f.step()
		}
		ends(t, nil, first, modest, patient)
		still(t, greedy)
		close(f.gate)
		ends(t, nil, greedy)
	})
}

// TestSharedWithWhoIsPatient has requests of both kinds wait for one prompt: it is encoded once, and counted as it came.
func TestSharedWithWhoIsPatient(t *testing.T) {
	for _, patientFirst := range []bool{false, true} {
		blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			first := goGet(t.Context(), te, "first", "first")
			order := []func(context.Context, *TextEmbeddings, string, ...string) <-chan error{goGet, goAwait}
			if patientFirst {
				slices.Reverse(order)
			}
			ctx, cancel := context.WithCancel(t.Context())
			gone := order[0](ctx, te, "gone", "shared", "alone")
			stays := order[1](t.Context(), te, "stays", "shared")
			cancel()
			synctest.Wait()
			ends(t, context.Canceled, gone)
			if n := s.Stats().Pending; n != 1 {
				t.Errorf("%d prompts wait, want 1", n)
			}
			close(f.gate)
			ends(t, nil, first, stays)
			if f.encoded["shared"] != 1 || f.encoded["alone"] != 0 || s.Stats().Pending != 0 || s.counts.patient.Load() != 0 {
				t.Errorf("encoded %v: %+v", f.encoded, s.Stats())
			}
		})
	}
}

// TestAwaitEach: a text that cannot be encoded fails alone, and a list with it fails.
func TestAwaitEach(t *testing.T) {
	s, te, f := openAll(t, memoryOnly(), "")
	te.encoder.Encode = func(ctx context.Context, texts []string) ([]Vector, error) {
		if i := slices.IndexFunc(texts, func(s string) bool { return strings.HasPrefix(s, "bad") }); i >= 0 {
			return nil, errors.New(texts[i])
		}
		return f.encode(ctx, texts)
	}
	texts := promptList("cat", 30)
	texts[7], texts[21] = "bad 1", "bad 2"
	vectors, errs := te.AwaitEach(t.Context(), fair.Caller{}, texts)
	for i, text := range texts {
		switch {
		case i == 7 || i == 21:
			if errs[i] == nil || !strings.HasSuffix(errs[i].Error(), text) || vectors[i].Embedding != nil {
				t.Errorf("%q: %v", text, errs[i])
			}
		case errs[i] != nil || !slices.Equal(vectors[i].Embedding, vectorOf("ns", text, testDim).Embedding):
			t.Errorf("%q: %v", text, errs[i])
		}
	}
	if _, err := te.Await(t.Context(), fair.Caller{}, texts); err == nil || !strings.HasSuffix(err.Error(), "bad 1") {
		t.Errorf("the list: %v", err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("boom")
	cancel(boom)
	if _, errs := te.AwaitEach(ended, fair.Caller{}, []string{"new", "a photo of a cat 1", "newer"}); fmt.Sprint(errs) != fmt.Sprint([]error{boom, boom, boom}) {
		t.Errorf("after the end: %v", errs)
	}
	closeStore(t, s)
	if _, err := te.Await(t.Context(), fair.Caller{}, []string{"x"}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
