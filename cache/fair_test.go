package cache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCallersTakeTurns(t *testing.T) {
	blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		greedy := goGet(t.Context(), te, "greedy", promptList("cat", 300)...)
		greedier := goGet(t.Context(), te, "greedier", promptList("dog", 1000)...)
		modest := goGet(t.Context(), te, "modest", "a", "b")
		for range 3 { // what was taken before modest came, then two rounds of three callers in batches of four
			f.step()
		}
		ends(t, nil, modest)
		still(t, greedy)
		close(f.gate)
		ends(t, nil, greedy, greedier)
	})
}

// A prompt that several wait for is encoded when the first of them has its turn.
func TestSharedPromptHasTheEarliestTurn(t *testing.T) {
	many := append(promptList("cat", 50), "shared")
	t.Run("of a later caller", func(t *testing.T) {
		blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			greedy := goGet(t.Context(), te, "greedy", many...)
			modest := goGet(t.Context(), te, "modest", "shared", "shared")
			f.step()
			f.step()
			ends(t, nil, modest)
			close(f.gate)
			if ends(t, nil, greedy); f.encoded["shared"] != 1 {
				t.Errorf("encoded %d times", f.encoded["shared"])
			}
		})
	})
	t.Run("of the caller who stays", func(t *testing.T) {
		blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			greedy := goGet(t.Context(), te, "greedy", many...)
			for _, leaver := range []string{"modest", "greedy"} { // the other one, and another request of this one
				ctx, cancel := context.WithCancel(t.Context())
				gone := goGet(ctx, te, leaver, "shared")
				cancel()
				ends(t, context.Canceled, gone)
			}
			close(f.gate)
			if ends(t, nil, greedy); f.order[len(f.order)-1] != "shared" {
				t.Errorf("the last one encoded is %q", f.order[len(f.order)-1])
			}
		})
	})
}

// When the queue is full the greediest makes room, as a whole, and costs nothing more.
func TestGreediestMakesRoom(t *testing.T) {
	config := memoryOnly()
	config.MaxPending = 10
	for _, mine := range [][]string{{"a", "b"}, {"a", "b", promptList("cat", 1000)[999]}} {
		blocked(t, config, func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			encoding := goGet(t.Context(), te, "first", "first")
			greedy := goGet(t.Context(), te, "greedy", promptList("cat", 1000)...)
			soon, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			ends(t, ErrBusy, goGet(soon, te, "as greedy", promptList("dog", 1000)...))
			late, cancel := context.WithCancel(t.Context())
			cancel()
			ends(t, context.Canceled, goGet(late, te, "late", "late"))
			still(t, greedy)

			modest := goGet(t.Context(), te, "modest", mine...)
			ends(t, ErrBusy, greedy)
			if stats := s.Stats(); stats.Pending != len(mine) || stats.Busy != 2 {
				t.Errorf("%d prompts wait, want %d; %d refused, want 2", stats.Pending, len(mine), stats.Busy)
			}
			close(f.gate)
			ends(t, nil, encoding, modest)
			want := append([]string{"first"}, mine...)
			slices.Sort(want)
			if slices.Sort(f.order); !slices.Equal(f.order, want) {
				t.Errorf("encoded %q, want %q", f.order, want)
			}
			ends(t, nil, goGet(t.Context(), te, "greedy", promptList("cat", 1000)...)) // alone
		})
	}
}

// An error that is about one prompt is for those who asked for it; one that is about the encoder is not tried again.
func TestBadPromptFailsAlone(t *testing.T) {
	lost := errors.New("the device is lost")
	for name, tt := range map[string]struct {
		encode func(v []Vector) ([]Vector, error)
		good   error // of the prompts that share the bad one's batch
		calls  int
	}{
		"error":          {func([]Vector) ([]Vector, error) { return nil, errors.New("not finite") }, nil, 5},
		"panic":          {func([]Vector) ([]Vector, error) { panic("index out of range") }, nil, 5},
		"a wrong vector": {func(v []Vector) ([]Vector, error) { clear(v[len(v)-1].Embedding); return v, nil }, nil, 5},
		"device lost":    {func([]Vector) ([]Vector, error) { return nil, lost }, lost, 2},
	} {
		t.Run(name, func(t *testing.T) {
			blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
				te.encoder.RetryAlone = func(err error) bool { return !errors.Is(err, lost) }
				te.encoder.Encode = func(ctx context.Context, texts []string) ([]Vector, error) {
					v, err := f.encode(ctx, texts)
					if err == nil && slices.ContainsFunc(texts, func(s string) bool { return strings.HasPrefix(s, "bad") }) {
						return tt.encode(v)
					}
					return v, err
				}
				first := goGet(t.Context(), te, "first", "first")
				modest := goGet(t.Context(), te, "modest", "a", "b")
				bad := goGet(t.Context(), te, "attacker", "bad")
				close(f.gate)
				ends(t, nil, first)
				ends(t, tt.good, modest)
				if err := <-bad; err == nil {
					t.Error("the bad prompt has a vector")
				}
				if stats := s.Stats(); stats.Encoded+stats.Failed != 4 || (stats.Failed == 1) != (tt.good == nil) || len(f.batches) != tt.calls {
					t.Errorf("%d calls: %+v", len(f.batches), stats)
				}
			})
		})
	}
}
