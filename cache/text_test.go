package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"hailoclip/pipeline/fair"
)

func TestGet(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prompts []string
		encoded int
	}{
		{"none", nil, 0},
		{"one", []string{"a cat"}, 1},
		{"several", []string{"a cat", "a dog", "ein Hund, großes ß", "猫"}, 4},
		{"repeated", []string{"a cat", "a dog", "a cat", "a cat"}, 2},
		{"empty and zero bytes", []string{"", "\x00", "\x00\x00", "a\x00b"}, 4},
		{"more than a batch", promptList("horse", 100), 100},
	} {
		for _, config := range []Config{testConfig(), memoryOnly(), {
			Mode: OnDemand, CacheMaxEntries: 1, CacheListBytes: 1 << 20, CacheFileMaxBytes: 16 << 20, MaxPending: 100,
		}} {
			t.Run(fmt.Sprintf("%s/enabled=%v,file=%v", tt.name, config.CacheEnabled, config.CacheFile != ""), func(t *testing.T) {
				_, te, f := openAll(t, config, t.TempDir())
				mustGet(t, te, tt.prompts...)
				if f.count() != tt.encoded {
					t.Fatalf("encoded %d prompts, want %d", f.count(), tt.encoded)
				}
				mustGet(t, te, tt.prompts...)
				slices.Reverse(tt.prompts)
				mustGet(t, te, tt.prompts...)
				if config.CacheEnabled && f.count() != tt.encoded {
					t.Fatalf("encoded %d prompts in the end, want %d", f.count(), tt.encoded)
				}
			})
		}
	}
}

func TestKnownListCostsOneLookUp(t *testing.T) {
	s, te, _ := openAll(t, memoryOnly(), "")
	prompts := promptList("cat", 20)
	first := mustGet(t, te, prompts...)
	s.lists.cache.Wait()
	before := s.Stats()
	second := mustGet(t, te, prompts...)
	after := s.Stats()
	if first != second || after.ListHits != before.ListHits+1 || after.MemoryHits != before.MemoryHits {
		t.Fatalf("the list was not kept: %+v, then %+v", before, after)
	}
	for name, other := range map[string][]string{
		"shorter":  prompts[:19],
		"longer":   append(slices.Clone(prompts), "a cat"),
		"reversed": {prompts[1], prompts[0]},
		"joined":   {strings.Join(prompts[:2], ""), prompts[2]},
	} {
		if p := mustGet(t, te, other...); p == first {
			t.Errorf("%s: another list got the same answer", name)
		}
	}
}

func TestRemember(t *testing.T) {
	s, te, f := openAll(t, memoryOnly(), "")
	prompts := promptList("cat", 20)
	if err := te.Remember(t.Context(), prompts); err != nil {
		t.Fatal(err)
	}
	if mustGet(t, te, prompts...); f.count() != 20 || s.Stats().ListHits != 0 || s.Stats().MemoryHits != 20 {
		t.Errorf("%d encoded: %+v", f.count(), s.Stats())
	}
}

// A list with the same hash must not get another list's vectors, nor must a prompt.
func TestEqualHashes(t *testing.T) {
	s, te, _ := openAll(t, memoryOnly(), "")
	cats, dogs := promptList("cat", 3), promptList("dog", 3)
	p := mustGet(t, te, cats...)
	s.lists.cache.Set(s.lists.key("ns", dogs), p, 0)
	s.lists.cache.Set(s.lists.key("other", cats), p, 0)
	e := s.singles.get("ns", testDim, cats[:1])
	for _, key := range []uint64{s.singles.key("ns", dogs[:1]), s.singles.key("other", cats[:1])} {
		s.singles.cache.Set(key, e, 0)
	}
	s.lists.cache.Wait()
	s.singles.cache.Wait()
	mustGet(t, te, dogs...)
	mustGet(t, te, dogs[0])
	mustGet(t, embeddings(t, s, newFake("other")), cats...)
	mustGet(t, te, cats...)
	one, other := []string{"a\x00b", "c"}, []string{"a", "b\x00c"} // the same bytes once the key joins them
	for range 3 {
		mustGet(t, te, one...)
		mustGet(t, te, other...)
		s.lists.cache.Wait()
	}
}

// Whoever gives two encoders of different dimensions one name must not get vectors of the other's.
func TestDimensionsDoNotMix(t *testing.T) {
	for name, config := range map[string]Config{"memory": memoryOnly(), "disk": testConfig()} {
		t.Run(name, func(t *testing.T) {
			config.CacheMaxEntries = 1 // so that the file and its queue are asked
			s, _ := openStore(t, config, t.TempDir())
			narrow, cats := newFake("ns"), promptList("cat", 30)
			te := embeddings(t, s, narrow)
			wide := embeddingsOf(t, s, Encoder{Namespace: "ns", Dim: 2 * testDim, Batch: 8, Calls: 1,
				Encode: wideEncode(newFake("ns"), 2*testDim)})
			for range 3 {
				mustGet(t, te, cats...)
				mustGet(t, wide, cats...)
			}
		})
	}
}

func TestNamespacesDoNotMix(t *testing.T) {
	dir := t.TempDir()
	prompts := promptList("cat", 10)
	for run := range 2 {
		s, _ := openStore(t, testConfig(), dir)
		npu, cpu := newFake("npu"), newFake("cpu")
		for range 2 {
			mustGet(t, embeddings(t, s, npu), prompts...)
			mustGet(t, embeddings(t, s, cpu), prompts...)
		}
		if want := 10 * (1 - run); npu.count() != want || cpu.count() != want {
			t.Fatalf("run %d: encoded %d and %d prompts, want %d", run, npu.count(), cpu.count(), want)
		}
		closeStore(t, s)
	}
}

// Prompts of the API point into a request body, which is used again afterwards.
func TestPromptsAreCopied(t *testing.T) {
	for _, n := range []int{1, 3} {
		_, te, _ := openAll(t, testConfig(), t.TempDir())
		body := []byte("cat dog owl")
		alias := func(from, to int) string { return unsafe.String(&body[from], to-from) }
		prompts := []string{alias(0, 3), alias(4, 7), alias(8, 11)}[:n]
		if _, err := te.Get(t.Context(), fair.Caller{}, prompts); err != nil {
			t.Fatal(err)
		}
		copy(body, "xxx xxx xxx")
		mustGet(t, te, []string{"cat", "dog", "owl"}[:n]...)
		mustGet(t, te, "xxx")
		mustGet(t, te, "dog", "cat")
	}
}

// What an encode func returns may be part of a buffer that it uses again.
func TestVectorsAreCopied(t *testing.T) {
	s, _ := openStore(t, testConfig(), t.TempDir())
	buffer := make([]float32, testDim)
	te := embeddingsOf(t, s, Encoder{Namespace: "ns", Dim: testDim, Batch: 1, Calls: 1,
		Encode: func(_ context.Context, texts []string) ([]Vector, error) {
			v := vectorOf("ns", texts[0], testDim)
			copy(buffer, v.Embedding)
			v.Embedding = buffer
			texts[0] = "changed"
			return []Vector{v}, nil
		}})
	for range 3 {
		mustGet(t, te, "a", "b", "c")
		mustGet(t, te, "c")
	}
}

func TestMissStorm(t *testing.T) {
	for name, config := range map[string]Config{"memory": memoryOnly(), "disk": testConfig()} {
		t.Run(name, func(t *testing.T) {
			_, te, f := openAll(t, config, t.TempDir())
			prompts := promptList("cat", 20)
			var group sync.WaitGroup
			for i := range 64 {
				group.Go(func() {
					mine := slices.Clone(prompts)
					for n := range mine { // each in another order, some as single prompts
						j := (n*7 + i) % len(mine)
						mine[n], mine[j] = mine[j], mine[n]
					}
					if i%3 == 0 {
						mine = mine[:1+i%5]
					}
					p, err := te.Get(context.Background(), fair.Caller{}, mine)
					if err != nil {
						t.Error(err)
						return
					}
					checkPrompts(t, te, p, mine)
				})
			}
			group.Wait()
			for prompt, times := range f.encoded {
				if times != 1 {
					t.Errorf("%q was encoded %d times", prompt, times)
				}
			}
			if len(f.encoded) != len(prompts) {
				t.Errorf("%d prompts were encoded, want %d", len(f.encoded), len(prompts))
			}
		})
	}
}

// TestCallsRunBesideEachOther: a prompt that comes while another is encoded has a call of its own, up to Encoder.Calls.
func TestCallsRunBesideEachOther(t *testing.T) {
	blocked(t, memoryOnly(), func(t *testing.T, _ *Store, te *TextEmbeddings, f *fakeEncoder) {
		te.encoder.Calls = 2
		a, b, c := goGet(t.Context(), te, "", "a"), goGet(t.Context(), te, "", "b"), goGet(t.Context(), te, "", "c")
		if want := []string{"a", "b"}; !slices.Equal(f.order, want) {
			t.Errorf("%q are being encoded, want %q", f.order, want)
		}
		close(f.gate)
		ends(t, nil, a, b, c)
	})
}

func TestBatchesGatherAcrossRequests(t *testing.T) {
	blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		var results []<-chan error
		for _, prompt := range []string{"a", "b", "c", "d", "e", "f"} {
			results = append(results, goGet(t.Context(), te, "", prompt))
		}
		if n := s.Stats().Pending; n != 5 {
			t.Errorf("%d prompts wait, want 5", n)
		}
		close(f.gate)
		ends(t, nil, results...)
		if want := []int{1, 4, 1}; !slices.Equal(f.batches, want) {
			t.Errorf("batches of %v, want %v: the first at once, then what has gathered", f.batches, want)
		}
	})
}

// No more than Calls calls at once, each with as much as there is.
func TestCallsAtOnce(t *testing.T) {
	blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		te.encoder.Calls = 3
		result := goGet(t.Context(), te, "", promptList("cat", 18)...)
		if want := []int{4, 4, 4}; !slices.Equal(f.batches, want) {
			t.Errorf("%v at once, want %v", f.batches, want)
		}
		close(f.gate)
		ends(t, nil, result)
		slices.Sort(f.batches) // the last two are called at once
		if want := []int{2, 4, 4, 4, 4}; !slices.Equal(f.batches, want) {
			t.Errorf("batches of %v, want %v", f.batches, want)
		}
	})
}

func TestCallerLeaves(t *testing.T) {
	reason := errors.New("the deadline of the request")
	for name, test := range map[string]func(t *testing.T, ctx context.Context, leave func(), te *TextEmbeddings, f *fakeEncoder){
		"others go on": func(t *testing.T, ctx context.Context, leave func(), te *TextEmbeddings, f *fakeEncoder) {
			gone := goGet(ctx, te, "", "a", "b")
			stays := goGet(t.Context(), te, "", "b", "a")
			leave()
			ends(t, reason, gone)
			close(f.gate)
			ends(t, nil, stays)
			if f.count() != 2 || len(f.ended) != 0 {
				t.Errorf("encoded %d prompts, calls ended by %v", f.count(), f.ended)
			}
		},
		"the last one cancels": func(t *testing.T, ctx context.Context, leave func(), te *TextEmbeddings, f *fakeEncoder) {
			gone := goGet(ctx, te, "", "a", "b")
			leave()
			ends(t, reason, gone)
			if len(f.ended) != 1 || !errors.Is(f.ended[0], context.Canceled) {
				t.Errorf("the call ended by %v", f.ended)
			}
			close(f.gate)
			ends(t, nil, goGet(t.Context(), te, "", "a", "b"))
		},
		"a later caller does not join a cancelled call": func(t *testing.T, ctx context.Context, leave func(), te *TextEmbeddings, f *fakeEncoder) {
			f.stubborn = true // the call is cancelled, but does not end before the later caller is here
			gone := goGet(ctx, te, "", "a")
			leave()
			later := goGet(t.Context(), te, "", "a")
			close(f.gate)
			ends(t, nil, later)
			ends(t, reason, gone)
			if len(f.order) != 2 {
				t.Errorf("encoded %q", f.order)
			}
		},
		"a queued prompt is not encoded": func(t *testing.T, ctx context.Context, leave func(), te *TextEmbeddings, f *fakeEncoder) {
			first := goGet(t.Context(), te, "", "a")
			gone := goGet(ctx, te, "", "b", "c", "b")
			stays := goGet(t.Context(), te, "", "c", "d")
			leave()
			if n := te.store.Stats().Pending; n != 2 {
				t.Errorf("%d prompts wait, want c and d", n)
			}
			close(f.gate)
			ends(t, nil, first, stays)
			ends(t, reason, gone)
			if f.encoded["b"] != 0 || f.encoded["c"] != 1 || f.encoded["d"] != 1 {
				t.Errorf("encoded %v", f.encoded)
			}
		},
		"a prompt of a running batch can be joined again": func(t *testing.T, ctx context.Context, leave func(), te *TextEmbeddings, f *fakeEncoder) {
			first := goGet(t.Context(), te, "", "first")
			stays := goGet(t.Context(), te, "", "a")
			gone := goGet(ctx, te, "", "b")
			f.step() // now a and b are one batch
			leave()
			again := goGet(t.Context(), te, "", "b")
			close(f.gate)
			ends(t, nil, first, stays, again)
			ends(t, reason, gone)
			if f.encoded["b"] != 1 {
				t.Errorf("b was encoded %d times", f.encoded["b"])
			}
		},
		"a deadline passes": func(t *testing.T, _ context.Context, _ func(), te *TextEmbeddings, _ *fakeEncoder) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ends(t, context.DeadlineExceeded, goGet(ctx, te, "", "a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			blocked(t, memoryOnly(), func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
				ctx, cancel := context.WithCancelCause(t.Context())
				test(t, ctx, func() { cancel(reason); synctest.Wait() }, te, f)
			})
		})
	}
}

func TestBusy(t *testing.T) {
	config := memoryOnly()
	config.MaxPending = 5
	blocked(t, config, func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
		encoding := goGet(t.Context(), te, "", "e")
		big := goGet(t.Context(), te, "", promptList("cat", 50)...) // more than the bound: taken whole
		ctx, cancel := context.WithCancel(t.Context())
		for _, prompts := range [][]string{{"new"}, {"e", "new"}, {"new", "e", "new"}} {
			if n := s.Stats().Pending; n != 50 {
				t.Fatalf("%d prompts wait, want 50", n)
			}
			ends(t, ErrBusy, goGet(ctx, te, "", prompts...))
		}
		joined := goGet(ctx, te, "", "e", promptList("cat", 50)[7]) // brings no new prompt
		still(t, joined)
		cancel()
		ends(t, context.Canceled, joined)
		close(f.gate)
		ends(t, nil, encoding, big)
		ends(t, nil, goGet(t.Context(), te, "", "new"))
		if stats := s.Stats(); stats.Busy != 3 || stats.Pending != 0 {
			t.Errorf("%+v", stats)
		}
	})
}

func TestEncodeFails(t *testing.T) {
	own := errors.New("the device is lost")
	number := func(x float64) func(v []Vector) ([]Vector, error) {
		return func(v []Vector) ([]Vector, error) { v[0].Embedding[3] = float32(x); return v, nil }
	}
	for name, spoil := range map[string]func(v []Vector) ([]Vector, error){
		"its own error":   func([]Vector) ([]Vector, error) { return nil, own },
		"panic":           func([]Vector) ([]Vector, error) { panic("oops") },
		"too few":         func(v []Vector) ([]Vector, error) { return v[1:], nil },
		"too many":        func(v []Vector) ([]Vector, error) { return append(v, v...), nil },
		"none":            func([]Vector) ([]Vector, error) { return nil, nil },
		"wrong dimension": func(v []Vector) ([]Vector, error) { v[0].Embedding = v[0].Embedding[1:]; return v, nil },
		"zero vector":     func(v []Vector) ([]Vector, error) { clear(v[0].Embedding); return v, nil },
		"negative tokens": func(v []Vector) ([]Vector, error) { v[0].Tokens = -1; return v, nil },
		"not a number":    number(math.NaN()),
		"infinite":        number(math.Inf(1)),
	} {
		t.Run(name, func(t *testing.T) {
			s, te, f := openAll(t, testConfig(), t.TempDir())
			te.encoder.Encode = func(ctx context.Context, texts []string) ([]Vector, error) {
				v, _ := f.encode(ctx, texts)
				return spoil(v)
			}
			want := ErrEncode
			if name == "its own error" {
				want = own
			}
			if _, err := te.Get(t.Context(), fair.Caller{}, []string{"a", "b"}); !errors.Is(err, want) {
				t.Fatalf("got %v, want %v", err, want)
			}
			te.encoder.Encode = f.encode // errors are not kept
			mustGet(t, te, "a", "b")
			if stats := s.Stats(); stats.Failed != 2 || stats.Encoded != 2 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

func TestCloseAnswersThoseWhoWait(t *testing.T) {
	for name, config := range map[string]Config{"memory": memoryOnly(), "disabled": {
		Mode: OnDemand, CacheMaxEntries: 1, CacheListBytes: 1 << 20, CacheFileMaxBytes: 16 << 20, MaxPending: 100,
	}} {
		t.Run(name, func(t *testing.T) {
			blocked(t, config, func(t *testing.T, s *Store, te *TextEmbeddings, f *fakeEncoder) {
				encoding := goGet(t.Context(), te, "", "a")
				queued := goGet(t.Context(), te, "", "b", "a")
				closeStore(t, s)
				ends(t, ErrClosed, encoding, queued, goGet(t.Context(), te, "", "c"))
				if _, err := s.Embeddings(te.encoder); !errors.Is(err, ErrClosed) {
					t.Errorf("Embeddings after Close: %v", err)
				}
			})
		})
	}
}

func TestEmbeddingsRefuses(t *testing.T) {
	s, _ := openStore(t, memoryOnly(), "")
	encode := newFake("ns").encode
	for name, e := range map[string]Encoder{
		"no namespace":   {Dim: 1, Batch: 1, Calls: 1, Encode: encode},
		"long namespace": {Namespace: strings.Repeat("x", 1025), Dim: 1, Batch: 1, Calls: 1, Encode: encode},
		"no dimension":   {Namespace: "ns", Batch: 1, Calls: 1, Encode: encode},
		"no batch":       {Namespace: "ns", Dim: 1, Calls: 1, Encode: encode},
		"no calls":       {Namespace: "ns", Dim: 1, Batch: 1, Encode: encode},
		"no func":        {Namespace: "ns", Dim: 1, Batch: 1, Calls: 1},
	} {
		if _, err := s.Embeddings(e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
