package sim

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"hailoclip/hailo/npu/wire"
)

// work is the device: it runs one batch after the other until the chip stops.
func (c *chip) work() {
	var free time.Time // when the device was free again
	for {
		m, jobs := c.next()
		if jobs == nil {
			return
		}
		// Under load the next run begins when the last one ended, and not when this process
		// got around to it: so the rate is the chip's, however late a timer fires.
		start := time.Now()
		if free.After(start.Add(-maxLateness)) && !jobs[0].arrived.After(free) {
			start = free
		}
		cost := c.Cost[m]
		took := time.Duration(float64(cost.Run+time.Duration(len(jobs))*cost.Frame) * c.faults.factor())
		for i := range jobs {
			if err := c.encode(m, int(jobs[i].slot)); err != nil {
				fmt.Fprintln(os.Stderr, "encode:", err)
				jobs[i].status = codeInternal
			}
		}
		c.sleepUntil(start.Add(took))
		free = start.Add(took)
		for _, j := range jobs {
			if !c.report(m, j, len(jobs), took) {
				return
			}
		}
	}
}

// maxLateness is how late the end of a run may be noticed and still not delay the next one.
const maxLateness = 5 * time.Millisecond

const codeInternal wire.Code = 8 // HAILO_INTERNAL_FAILURE

// sleepUntil waits in the kernel: the runtime's timers are late by up to a millisecond. It
// gives up when the chip stops.
func (c *chip) sleepUntil(t time.Time) {
	for {
		d := time.Until(t)
		if d <= 0 {
			return
		}
		c.mu.Lock()
		stop := c.stop
		c.mu.Unlock()
		if stop {
			return
		}
		ts := unix.NsecToTimespec(min(d, 50*time.Millisecond).Nanoseconds())
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // EINTR: once more
	}
}

// next blocks until a model may run, and takes its frames; nil when the chip stops.
func (c *chip) next() (int, []job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.stop {
		hang, heat, _ := c.faults.state()
		best, wait := -1, time.Duration(0)
		for i := range c.models {
			m := (c.turn + 1 + i) % models // the one after the last first: round robin
			x := &c.models[m]
			if len(x.waiting) == 0 || hang || heat >= 5 {
				continue
			}
			if w := x.wait(time.Now()); w > 0 {
				if wait == 0 || w < wait {
					wait = w
				}
				continue
			}
			if best < 0 || x.load.Priority > c.models[best].load.Priority {
				best = m
			}
		}
		if best >= 0 {
			c.turn = best
			x := &c.models[best]
			n := min(len(x.waiting), int(x.load.Batch))
			jobs := x.waiting[:n:n]
			x.waiting = x.waiting[n:]
			return best, jobs
		}
		timer := time.AfterFunc(cmp.Or(wait, time.Hour), c.wake)
		c.changed.Wait()
		timer.Stop()
	}
	return 0, nil
}

// wait is how long the model's threshold still holds it back.
func (x *model) wait(now time.Time) time.Duration {
	if len(x.waiting) >= int(x.load.Threshold) {
		return 0
	}
	return x.waiting[0].arrived.Add(time.Duration(x.load.TimeoutMS) * time.Millisecond).Sub(now)
}

// encode computes the output of a slot, row by row. The text encoder is causal: a row of its output depends on
// the rows of the input up to it. Vectors of real encoders are in every row.
func (c *chip) encode(m int, slot int) error {
	x := &c.models[m]
	in := x.load.Input(c.data, slot)[:x.loaded.Input.FrameBytes]
	out := x.load.Output(c.data, slot)[:x.loaded.Output.FrameBytes]
	real, err := c.encodeReal(m, in)
	if err != nil {
		return err
	}
	rows, outRow := len(out)/x.loaded.Output.RowBytes(), x.loaded.Output.RowBytes()
	inRow := len(in) / rows
	v := make([]float32, x.loaded.Output.Features)
	hash := xxh3.New()
	for r := range rows {
		if real != nil {
			spread(v, real)
		} else {
			_, _ = hash.Write(in[r*inRow : (r+1)*inRow])
			fillVector(v, hash.Sum64())
		}
		x.loaded.Output.Encode(out[r*outRow:(r+1)*outRow], v)
	}
	return nil
}

// encodeReal is what the real encoders make of an input; nil without them.
func (c *chip) encodeReal(m int, in []byte) ([]float32, error) {
	switch {
	case c.encoders.Image == nil:
		return nil, nil
	case m == wire.ImageModel:
		return c.encoders.Image(in)
	}
	tokens, row := make([]int32, c.ContextLength), make([]float32, c.Width)
	stream := &c.models[m].loaded.Input
	for r := range tokens {
		stream.Decode(row, in[r*stream.RowBytes():])
		tokens[r] = tokenOf(row)
	}
	return c.encoders.Text(tokens)
}

// report tells the host that a frame is done, or what a fault makes of that. False: the device
// has stopped.
func (c *chip) report(m int, j job, batch int, took time.Duration) bool {
	hang, _, _ := c.faults.state()
	if hang {
		return true // next does not return any more
	}
	fault, failure := c.faults.next()
	if failure != wire.Success {
		j.status = failure
	}
	if fault == "crash" {
		c.faults.kill()
		return false
	}
	c.mu.Lock()
	if c.stop {
		c.mu.Unlock()
		return false
	}
	x := &c.models[m]
	x.busy[j.slot] = false
	x.n--
	c.done++
	c.mu.Unlock()
	packet := wire.Append(nil, &wire.Done{
		Model: uint32(m), Slot: j.slot, Sequence: j.sequence, Status: j.status,
		Batch: uint32(batch), DeviceNS: uint64(took.Nanoseconds()),
	})
	switch fault {
	case "lose":
		return true
	case "garbage":
		packet = packet[:1+j.sequence%uint64(len(packet)-1)]
		_, _ = rand.Read(packet)
	case "repeat":
		c.send(packet)
	}
	c.send(packet)
	return true
}
