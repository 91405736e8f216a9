package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/pipeline/fair"
)

func callerNamed(address string) fair.Caller { return fair.Caller{Address: address, Connection: 1} }

// goGetAs is goGet for a caller.
func goGetAs(ctx context.Context, te *TextEmbeddings, address string, prompts ...string) <-chan error {
	result := make(chan error, 1)
	go func() {
		p, err := te.Get(ctx, callerNamed(address), prompts)
		if err == nil {
			for i, prompt := range prompts {
				if !slices.Equal(p.Rows[i].Embedding, vectorOf("ns", prompt, testDim).Embedding) {
					err = fmt.Errorf("%q has the vector of another prompt", prompt)
				}
			}
		}
		result <- err
	}()
	synctest.Wait()
	return result
}

// still fails the test when a request has ended.
func still(t *testing.T, what string, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		t.Fatalf("%s has ended: %v", what, err)
	default:
	}
}

func TestCallersTakeTurns(t *testing.T) {
	blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		greedy := []<-chan error{
			goGetAs(t.Context(), te, "greedy", promptList("cat", 300)...),
			goGetAs(t.Context(), te, "greedier", promptList("dog", 1000)...),
		}
		modest := goGetAs(t.Context(), te, "modest", "a", "b")
		for range 3 { // what was taken before modest came, then two rounds of three callers in batches of four
			f.gate <- struct{}{}
			synctest.Wait()
		}
		if err := <-modest; err != nil {
			t.Error(err)
		}
		still(t, "the first greedy one", greedy[0])
		close(f.gate)
		for _, result := range greedy {
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
	})
}

// A prompt that several wait for is encoded when the first of them has its turn.
func TestSharedPromptHasTheEarliestTurn(t *testing.T) {
	many := append(promptList("cat", 50), "shared")
	t.Run("of a later caller", func(t *testing.T) {
		blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			greedy := goGetAs(t.Context(), te, "greedy", many...)
			modest := goGetAs(t.Context(), te, "modest", "shared", "shared")
			f.gate <- struct{}{}
			synctest.Wait()
			f.gate <- struct{}{}
			synctest.Wait()
			if err := <-modest; err != nil {
				t.Error(err)
			}
			close(f.gate)
			if err := <-greedy; err != nil || f.encoded["shared"] != 1 {
				t.Errorf("%v, encoded %d times", err, f.encoded["shared"])
			}
		})
	})
	t.Run("of the caller who stays", func(t *testing.T) {
		blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			greedy := goGetAs(t.Context(), te, "greedy", many...)
			for _, leaver := range []string{"modest", "greedy"} { // the other one, and another connection's request
				ctx, cancel := context.WithCancel(t.Context())
				gone := goGetAs(ctx, te, leaver, "shared")
				cancel()
				if err := <-gone; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
			close(f.gate)
			if err := <-greedy; err != nil || f.order[len(f.order)-1] != "shared" {
				t.Errorf("%v, the last one encoded is %q", err, f.order[len(f.order)-1])
			}
		})
	})
}

// When the queue is full the greediest makes room, as a whole, and costs nothing more.
func TestGreediestMakesRoom(t *testing.T) {
	config := memoryOnly()
	config.MaxPending = 10
	for _, prefix := range []string{"", "prompts of all"} {
		blocked(t, config, func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
			encoding := goGetAs(t.Context(), te, "first", "first")
			greedy := goGetAs(t.Context(), te, "greedy", promptList("cat", 1000)...)
			soon, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			asGreedy := goGetAs(soon, te, "other", promptList("dog", 1000)...)
			if err := <-asGreedy; !errors.Is(err, ErrBusy) {
				t.Errorf("one who brings as much got %v", err)
			}
			if _, err := te.rows(soon, fair.Caller{}, []string{"of a file"}); !errors.Is(err, ErrBusy) {
				t.Errorf("the prompt file got %v", err)
			}
			late, cancel := context.WithCancel(t.Context())
			cancel()
			if err := <-goGetAs(late, te, "late", "late"); !errors.Is(err, context.Canceled) {
				t.Errorf("one whose time is over got %v", err)
			}
			still(t, "the greedy one", greedy)

			mine := []string{"a", "b"}
			if prefix != "" {
				mine = append(mine, promptList("cat", 1000)[999])
			}
			modest := goGetAs(t.Context(), te, "modest", mine...)
			if err := <-greedy; !errors.Is(err, ErrBusy) {
				t.Errorf("the greedy one got %v", err)
			}
			if stats := s.Stats(); stats.Pending != len(mine) || stats.Busy != 3 {
				t.Errorf("%d prompts wait, want %d; %d refused, want 3", stats.Pending, len(mine), stats.Busy)
			}
			close(f.gate)
			for _, result := range []<-chan error{encoding, modest} {
				if err := <-result; err != nil {
					t.Error(err)
				}
			}
			slices.Sort(f.order)
			want := append([]string{"first"}, mine...)
			if slices.Sort(want); !slices.Equal(f.order, want) {
				t.Errorf("encoded %q, want %q", f.order, want)
			}
			if err := <-goGetAs(t.Context(), te, "greedy", promptList("cat", 1000)...); err != nil {
				t.Errorf("the greedy one alone: %v", err)
			}
		})
	}
}

// A disk that hangs holds nobody past his time, and what a caller leaves behind is gone at once.
func TestLeavingCostsNothing(t *testing.T) {
	s, _ := openStore(t, testConfig(), t.TempDir())
	f := newFake("ns")
	te := embeddings(t, s, f)
	s.disk.using.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := te.Get(ctx, callerNamed("greedy"), promptList("cat", 1000))
		gone <- err
	}()
	for s.Stats().Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if found := s.disk.get(ctx, "ns", testDim, []string{"a"}, make([]*Prompts, 1)); found != nil {
		t.Error("a disk that hangs has something")
	}
	s.disk.using.Unlock()
	mustGet(t, te, "a")
	if n := s.Stats().Pending; n != 0 || f.count() != 1 {
		t.Errorf("%d prompts wait, encoded %d, want the one that somebody waits for", n, f.count())
	}
}

// An error that is about one prompt is for those who asked for it.
func TestBadPromptFailsAlone(t *testing.T) {
	for name, encode := range map[string]func(v []Vector) ([]Vector, error){
		"error":          func([]Vector) ([]Vector, error) { return nil, errors.New("not finite") },
		"panic":          func([]Vector) ([]Vector, error) { panic("index out of range") },
		"a wrong vector": func(v []Vector) ([]Vector, error) { clear(v[len(v)-1].Embedding); return v, nil },
	} {
		t.Run(name, func(t *testing.T) {
			blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
				te.encoder.Encode = func(ctx context.Context, texts []string) ([]Vector, error) {
					v, err := f.encode(ctx, texts)
					if err == nil && slices.ContainsFunc(texts, func(s string) bool { return strings.HasPrefix(s, "bad") }) {
						return encode(v)
					}
					return v, err
				}
				results := []<-chan error{
					goGetAs(t.Context(), te, "first", "first"),
					goGetAs(t.Context(), te, "modest", "a", "b"),
				}
				bad := goGetAs(t.Context(), te, "attacker", "bad")
				close(f.gate)
				for _, result := range results {
					if err := <-result; err != nil {
						t.Error(err)
					}
				}
				if err := <-bad; err == nil {
					t.Error("the bad prompt has a vector")
				}
				if stats := s.Stats(); stats.Encoded != 3 || stats.Failed != 1 {
					t.Errorf("%+v", stats)
				}
			})
		})
	}
}
