package worker_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hailoclip/hailo/backendtest"
	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/npu/wire"
)

// objects is a file of the fake chip: a + for each object made on it, a - for each that was let go of.
type objects string

func (o objects) count() (made, gone int) {
	said, _ := os.ReadFile(string(o))
	return strings.Count(string(said), "+"), strings.Count(string(said), "-")
}

// expect checks how many were made and let go of.
func (o objects) expect(t *testing.T, made, gone int) {
	t.Helper()
	m, g := o.count()
	assert.True(t, m == made && g == gone, "%d objects made on the chip, %d let go of; want %d, %d", m, g, made, gone)
}

// Wherever the chip still answers, the worker lets go of every object that it has on the chip before it
// ends, whatever the reason is and whoever decides it. The objects take a while to go, so a worker that is
// killed at once leaves them.
func TestNothingIsLeftOnTheChip(t *testing.T) {
	t.Parallel()
	wait := func(t *testing.T, what func() bool) {
		for end := time.Now().Add(patience); !what(); time.Sleep(time.Millisecond) {
			assert.MustTrue(t, !time.Now().After(end), "it does not come to that")
		}
	}
	starts := func(t *testing.T, b *npu.Backend, _ objects) { // several that fail
		wait(t, func() bool { return strings.Contains(b.Status().Reason(), "3 starts failed") })
	}
	loading := func(t *testing.T, _ *npu.Backend, chip objects) {
		wait(t, func() bool { made, _ := chip.count(); return made > 0 })
	}
	ready := func(t *testing.T, b *npu.Backend, _ objects) { assert.Must(t, b.Await(t.Context())) }
	work := func(t *testing.T, b *npu.Backend, chip objects) { // until the worker is lost
		ready(t, b, chip)
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for b.Metrics().Restarts == 0 {
					_, _ = backendtest.Encode(context.Background(), b, func([]byte) {})
				}
			})
		}
		clients.Wait()
	}
	tests := []struct {
		name, fake string
		change     func(*npu.Options)
		until      func(t *testing.T, b *npu.Backend, chip objects)
		noObjects  bool
	}{
		{name: "closed when idle", until: ready},
		{name: "the worker refuses the model", fake: "configure=93", until: starts},
		{name: "we refuse the model", change: func(o *npu.Options) { o.ImageSize++ }, until: starts},
		{name: "the second model does not load", change: func(o *npu.Options) { o.Text.HEF += ".none" }, until: starts},
		{name: "we refuse the chip", fake: "arch=3", until: starts},
		{name: "we refuse its software", fake: "firmware=1", until: starts},
		{name: "it does not open", fake: "create=73", until: starts, noObjects: true},
		{name: "closed while a model is loaded", fake: "configure_ms=500", until: loading},
		{name: "CRC errors", fake: "crc=1", until: starts},
		{name: "frames fail", fake: "scale=0.1,error_from=20,error=8", until: work},
		{name: "the model is shut down", fake: "scale=0.1,run_error_at=20,run_error=8", until: work},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, chip := clientOptions(t, builds[0], "teardown_ms=50,"+tt.fake)
			if tt.change != nil {
				tt.change(&o)
			}
			b := assert.Value(npu.New(o))
			tt.until(t, b, chip)
			assert.NoError(t, b.Close())
			made, _ := chip.count()
			chip.expect(t, made, made)
			assert.True(t, (made == 0) == tt.noObjects, "%d objects made on the chip", made)
		})
	}
}

// When the service is killed its worker still lets go of the device.
func TestServiceKilled(t *testing.T) {
	t.Parallel()
	h := start(t, builds[0], "scale=20,teardown_ms=50")
	h.ready().fill(32, wire.ImageModel)
	h.conn.Close() // all that it sees of the death of its host
	h.exit(exitDone, "")
	h.chip.expect(t, 2, 2)
}

// A connection for statistics that does not answer keeps nothing but itself on the chip, and the worker no
// longer than its limit.
func TestStatisticsStuck(t *testing.T) {
	t.Parallel()
	h := start(t, builds[0], "scale=0,rpc_ms=600000")
	h.ready()
	for made := 0; made < 2; made, _ = h.chip.count() { // it asks
		time.Sleep(time.Millisecond)
	}
	h.conn.Close()
	h.exit(exitStuck, "did not let go in time")
	h.chip.expect(t, 2, 1)
}
