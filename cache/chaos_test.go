package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"hailoclip/pipeline/fair"
)

// Everything at once: callers with and without patience, two encoders one of which fails now
// and then, stats, and a close in the middle. Every answer is right or a known error.
func TestEverythingAtOnce(t *testing.T) {
	config := testConfig()
	config.CacheMaxEntries, config.MaxPending = 50, 40
	s, _ := openStore(t, config, t.TempDir())
	sometimes := errors.New("sometimes")
	encoder := func(namespace string, failures float64) *TextEmbeddings {
		f := newFake(namespace)
		return embeddingsOf(t, s, Encoder{Namespace: namespace, Dim: testDim, Batch: 4, Calls: 2,
			Encode: func(ctx context.Context, texts []string) ([]Vector, error) {
				if rand.Float64() < failures {
					return nil, sometimes
				}
				return f.encode(ctx, texts)
			}})
	}
	npu, cpu := encoder("npu", 0.1), encoder("cpu", 0)
	answers, closing := make(chan int, 1), make(chan struct{})
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			right := 0
			for n := range 400 {
				te := npu
				if i%2 == 0 {
					te = cpu
				}
				prompts := make([]string, 1+random.IntN(12))
				for j := range prompts {
					prompts[j] = fmt.Sprint("prompt ", random.IntN(300))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if n%5 == 0 {
					ctx, cancel = context.WithTimeout(t.Context(), time.Duration(random.IntN(200))*time.Microsecond)
				}
				p, err := te.Get(ctx, fair.Caller{Address: fmt.Sprint(i % 3), Connection: uint64(i % 12)}, prompts)
				cancel()
				switch {
				case err == nil:
					checkPrompts(t, te, p, prompts)
					right++
				case errors.Is(err, ErrClosed):
					select {
					case <-closing:
						return
					default:
						t.Error("closed before its time")
					}
				case !errors.Is(err, sometimes) && !errors.Is(err, ErrBusy) && !errors.Is(err, context.DeadlineExceeded):
					t.Error(err)
				}
				if stats := s.Stats(); stats.Pending < 0 || stats.Pending > config.MaxPending+24*12 {
					t.Errorf("%d prompts wait", stats.Pending)
				}
				if i == 1 && n == 350 {
					close(closing)
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
			}
			select {
			case answers <- right:
			default:
			}
		})
	}
	group.Wait()
	for _, te := range []*TextEmbeddings{npu, cpu} {
		if len(te.pending) != 0 || te.queue.Len() != 0 || s.Stats().Pending != 0 {
			t.Errorf("left over: %d pending, %d queued, %d waiting", len(te.pending), te.queue.Len(), s.Stats().Pending)
		}
	}
	if stats := s.Stats(); stats.Encoded == 0 || stats.Shared == 0 {
		t.Errorf("%+v", stats)
	}
}
