package clip

import (
	"os"
	"testing"
)

// TestWorkerNow takes this process for a worker, whose numbers it knows in another way too.
func TestWorkerNow(t *testing.T) {
	w := workerNow(os.Getpid())
	after := ProcessNow()
	if w == nil || w.PID != os.Getpid() || w.CPUSeconds > after.CPUSeconds+0.02 || w.RSSBytes < 1<<20 {
		t.Errorf("%+v, and of the process %+v", w, after)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if w := workerNow(pid); w != nil {
			t.Errorf("process %d: %+v", pid, w)
		}
	}
}
