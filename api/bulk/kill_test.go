package bulk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

// childEnv makes the test binary a process that indexes a folder.
const childEnv = "HAILO_CLIP_BULK_TEST_CHILD"

type noTest struct{ testing.TB }

func (noTest) Cleanup(func())           {}
func (noTest) Helper()                  {}
func (noTest) Context() context.Context { return context.Background() }
func (noTest) Fatal(args ...any)        { panic(fmt.Sprint(args...)) }

// childRun indexes the folder of the first argument into the file of the second.
func childRun(args []string) {
	b := &bench{t: noTest{}, dir: args[0], out: args[1]}
	b.job = Job{Source: folder(b.dir), Dimension: testDim}
	var calls atomic.Int64
	b.job.Encoder = testEncoder(b.t, &calls)
	if s, err := b.run(nil); err != nil {
		panic(fmt.Sprint(err, s))
	}
}

// TestKilled kills the process that indexes at random moments until it comes to its end, while files change: then
// every path has one row, with the vector of what it holds.
func TestKilled(t *testing.T) {
	images, rounds := 3000, 6
	if testing.Short() {
		images, rounds = 600, 2
	}
	if os.Getenv("HAILO_TEST_INDEX_KILLS") != "" {
		rounds = 60
	}
	random := rand.New(rand.NewPCG(1, 2))
	b := newBench(t)
	for i := range images {
		b.write(fmt.Sprintf("%d/%d", i%13, i), fmt.Sprint("image ", i%(images*9/10)))
	}
	b.write("bad", "bad")
	kills := 0
	for round := range rounds {
		for patience := 100; ; patience += patience / 4 {
			c := exec.Command(os.Args[0], b.dir, b.out)
			c.Env = append(os.Environ(), childEnv+"=1")
			c.Stderr = os.Stderr
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(random.IntN(patience)+5)*time.Millisecond, func() { _ = c.Process.Kill() })
			err := c.Wait()
			timer.Stop()
			if err == nil {
				break
			}
			if c.ProcessState.Exited() {
				t.Fatal("it failed: ", err)
			}
			if kills++; kills > 2000 {
				t.Fatal("it never comes to its end")
			}
		}
		b.check()
		if v := b.verified(false); !v.Good(false) {
			t.Errorf("round %d: %+v", round, v)
		}
		if t.Failed() {
			break
		}
		for i := range images / 10 { // change some, a few of them back, for the next round
			n := random.IntN(images)
			name := fmt.Sprintf("%d/%d", n%13, n)
			b.write(name, fmt.Sprint("image ", random.IntN(images), " in round ", round*(i%2)))
			b.later(name, round*images+i)
		}
	}
	t.Logf("%d kills in %d rounds of %d images", kills, rounds, images)
}
