package sim

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"hailoclip/hailo/npu"
)

// faultsHelp lists what Command takes.
const faultsHelp = `Faults, for --fault and, one a line, for the control socket, where frames are counted from the
command on (N = 1 is the next):

  ok          end all faults
  hang        finish nothing any more, say nothing any more
  crash       die at once
  crash=N     die instead of finishing the Nth frame
  error=C     every frame ends with status C
  error=C@N   the Nth frame does
  lose=N      do not report the Nth frame
  repeat=N    report the Nth frame twice
  garbage=N   send nonsense instead of the report of the Nth frame
  slow=F      take F times as long, F > 0
  decay=F     take longer with every frame from now on, by F of the first time
  heat=S      throttling state S, 0 to 6; at 5 and 6 the streams are off
  refuse=W    do not open: busy, version, nodevice, silent (no answer), magic (wrong protocol)
`

// Faults is what goes wrong, as commanded by words: see faultsHelp. Safe for concurrent use.
type Faults struct {
	mu      sync.Mutex
	hang    bool
	crash   uint64 // these: number of the frame, 0 never
	lose    uint64
	repeat  uint64
	garbage uint64
	failAt  uint64 // math.MaxUint64: every frame
	code    npu.Code
	slow    float64
	decay   float64
	decayed uint64 // frames finished when decay was commanded
	heat    uint32
	refuse  string
	frames  uint64        // finished
	dying   func()        // ends the process
	heated  chan struct{} // tells that heat has changed
}

// NewFaults is a chip without faults. dying is called by crash and must end the process.
func NewFaults(dying func()) *Faults {
	return &Faults{dying: dying, heated: make(chan struct{}, 1)}
}

// every marks a fault of all frames.
const every = math.MaxUint64

// Command changes the faults.
func (f *Faults) Command(line string) error {
	word, value, _ := strings.Cut(strings.TrimSpace(line), "=")
	f.mu.Lock()
	defer f.mu.Unlock()
	switch word {
	case "ok":
		f.hang, f.crash, f.lose, f.repeat, f.garbage, f.failAt = false, 0, 0, 0, 0, 0
		f.slow, f.decay, f.heat, f.refuse = 0, 0, 0, ""
		f.tell()
		return nil
	case "hang":
		f.hang = true
		return nil
	case "crash":
		if value == "" {
			f.dying()
			return nil
		}
		return f.frame(&f.crash, value)
	case "lose":
		return f.frame(&f.lose, value)
	case "repeat":
		return f.frame(&f.repeat, value)
	case "garbage":
		return f.frame(&f.garbage, value)
	case "error":
		code, at, some := strings.Cut(value, "@")
		c, err := strconv.ParseInt(code, 10, 32)
		if err != nil || c == 0 {
			return fmt.Errorf("fault %q: %q is not a status", line, code)
		}
		f.failAt = every
		if some {
			err = f.frame(&f.failAt, at)
		}
		f.code = npu.Code(c)
		return err
	case "slow":
		return number(&f.slow, value, 1e-6)
	case "decay":
		f.decayed = f.frames
		return number(&f.decay, value, 0)
	case "heat":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > 6 {
			return fmt.Errorf("fault heat: state %q, want 0 to 6", value)
		}
		f.heat = uint32(n)
		f.tell()
		return nil
	case "refuse":
		switch value {
		case "busy", "version", "nodevice", "silent", "magic":
			f.refuse = value
			return nil
		}
		return fmt.Errorf("fault refuse: %q, want busy, version, nodevice, silent or magic", value)
	}
	return fmt.Errorf("fault %q is unknown", line)
}

// tell wakes who reports the heat.
func (f *Faults) tell() {
	select {
	case f.heated <- struct{}{}:
	default:
	}
}

// frame reads the number of a frame from now.
func (f *Faults) frame(at *uint64, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("fault: frame %q, want a number from 1", value)
	}
	*at = f.frames + n
	return nil
}

func number(v *float64, value string, least float64) error {
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || !(n >= least) || n > 1e6 {
		return fmt.Errorf("fault: %q, want a number from %g to 1e6", value, least)
	}
	*v = n
	return nil
}

// factor is how many times as long a run takes.
func (f *Faults) factor() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.slow
	if k == 0 {
		k = 1
	}
	return k * (1 + f.decay*float64(f.frames-f.decayed))
}

// fate is what happens to the report of a frame.
type fate struct {
	code                        npu.Code
	crash, lose, repeat, babble bool
}

// next counts a frame and says its fate.
func (f *Faults) next() fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frames++
	n := f.frames
	r := fate{crash: n == f.crash, lose: n == f.lose, repeat: n == f.repeat, babble: n == f.garbage}
	if f.failAt == every || n == f.failAt {
		r.code = f.code
	}
	return r
}

// state is what the device is like now.
func (f *Faults) state() (hang bool, heat uint32, refuse string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hang, f.heat, f.refuse
}
