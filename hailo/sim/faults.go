package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"hailoclip/hailo/npu/wire"
)

// faultsHelp lists what command takes.
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

// faults is what goes wrong, as commanded by words: see faultsHelp. Safe for concurrent use.
type faults struct {
	kill   func()        // ends the process
	heated chan struct{} // tells that heat has changed

	mu     sync.Mutex
	frames uint64 // finished
	commanded
}

// commanded is what "ok" ends.
type commanded struct {
	hang    bool
	at      map[string]uint64 // for crash, lose, repeat, garbage, error: number of the frame
	code    wire.Code         // of error
	slow    float64           // 0: not
	decay   float64
	decayed uint64 // frames finished when decay was commanded
	heat    uint32
	refuse  string
}

// newFaults makes a chip without faults. kill is called by crash and must end the process.
func newFaults(kill func()) *faults {
	return &faults{kill: kill, heated: make(chan struct{}, 1), commanded: commanded{at: map[string]uint64{}}}
}

// refusals are the ways not to open, with the status that is said, if any.
var refusals = map[string]wire.Code{
	"busy": wire.CodeDeviceInUse, "version": wire.CodeDriverVersion, "nodevice": wire.CodeNoDevice, "silent": 0, "magic": 0,
}

// every marks a fault of all frames.
const every = math.MaxUint64

// command changes the faults.
func (f *faults) command(line string) error {
	word, value, _ := strings.Cut(strings.TrimSpace(line), "=")
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case word == "ok":
		f.commanded = commanded{at: map[string]uint64{}}
		f.wake()
	case word == "hang":
		f.hang = true
	case word == "crash" && value == "":
		f.kill()
	case slices.Contains(reportFaults, word):
		return f.frame(word, value)
	case word == "error":
		code, at, some := strings.Cut(value, "@")
		c, err := strconv.ParseInt(code, 10, 32)
		if err != nil || c == 0 {
			return fmt.Errorf("fault %q: %q is not a status", line, code)
		}
		f.code, f.at[word] = wire.Code(c), every
		if some {
			return f.frame(word, at)
		}
	case word == "slow":
		return number(&f.slow, value, 1e-6)
	case word == "decay":
		f.decayed = f.frames
		return number(&f.decay, value, 0)
	case word == "heat":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > 6 {
			return fmt.Errorf("fault heat: state %q, want 0 to 6", value)
		}
		f.heat = uint32(n)
		f.wake()
	case word == "refuse":
		if _, known := refusals[value]; !known {
			return fmt.Errorf("fault refuse: %q, want busy, version, nodevice, silent or magic", value)
		}
		f.refuse = value
	default:
		return fmt.Errorf("fault %q is unknown", line)
	}
	return nil
}

// wake has the heat reported.
func (f *faults) wake() {
	select {
	case f.heated <- struct{}{}:
	default:
	}
}

// frame reads the number of a frame from now.
func (f *faults) frame(word, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("fault: frame %q, want a number from 1", value)
	}
	f.at[word] = f.frames + n
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
func (f *faults) factor() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return cmp.Or(f.slow, 1) * (1 + f.decay*float64(f.frames-f.decayed))
}

// reportFaults are those of the report of a frame; the first one wins.
var reportFaults = []string{"crash", "lose", "garbage", "repeat"}

// next counts a frame and says what goes wrong with its report: one of reportFaults or "", and its status.
func (f *faults) next() (fault string, code wire.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frames++
	if at := f.at["error"]; at == every || at == f.frames {
		code = f.code
	}
	for _, word := range reportFaults {
		if f.at[word] == f.frames {
			return word, code
		}
	}
	return "", code
}

// state is what the device is like now.
func (f *faults) state() (hang bool, heat uint32, refuse string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hang, f.heat, f.refuse
}
