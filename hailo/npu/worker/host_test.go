package worker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/npu/wire"
)

// The models of the fake: what their HEF says, and where their frames are in the memory.
type model struct {
	hef     string
	in, out int // bytes of a frame
	slots   int
}

var page = os.Getpagesize()

// Small frames of an odd size, so that the sanitizers get through thousands of them.
var (
	imageModel = model{hef: "17 16 3 1  1 1 64 1  0.2 0.02 1", in: 17 * 16 * 3, out: 64, slots: 40}
	textModel  = model{hef: "1 7 32 2  1 7 32 1  0.2 0.1 1", in: 7 * 32 * 2, out: 7 * 32, slots: 40}
)

// A host is the other side of a worker.
type host struct {
	t      testing.TB
	conn   *os.File
	cmd    *exec.Cmd
	stderr *bytes.Buffer
	memory *wire.Memory
	models [2]model
	hefs   [2]string
	chip   objects
	runs   string // file: what HAILO_FAKE_RUNS tells
	ended  chan struct{}
	stats  *wire.Stats // the latest
}

// start starts a worker on a chip with these options (see HAILO_FAKE in fake_chip.hpp).
func start(t testing.TB, b *build, fake string, models ...model) *host {
	t.Helper()
	if len(models) == 0 {
		models = []model{imageModel, textModel}
	}
	h := &host{t: t, stderr: new(bytes.Buffer), ended: make(chan struct{})}
	folder := t.TempDir()
	h.chip, h.runs = objects(filepath.Join(folder, "objects")), filepath.Join(folder, "runs")
	var slots, in, out [wire.Models]int
	for i, m := range models {
		h.models[i] = m
		slots[i], in[i], out[i] = m.slots, m.in, m.out
		h.hefs[i] = filepath.Join(folder, fmt.Sprintf("%d.hef", i))
		assert.Must(t, os.WriteFile(h.hefs[i], []byte("\x01HEF "+m.hef+"\n"), 0o600))
	}
	h.memory = assert.Value(wire.NewMemory(slots, in, out))
	defer h.memory.File.Close()
	ours, theirs, err := wire.Pair()
	assert.Must(t, err)
	defer theirs.Close()
	h.conn = ours

	h.cmd = exec.Command(b.program(t))
	h.cmd.Stderr = h.stderr
	h.cmd.ExtraFiles = []*os.File{theirs, h.memory.File}
	h.cmd.Env = append(os.Environ(), "HAILO_FAKE="+fake, "HAILO_FAKE_DEVICES="+string(h.chip), "HAILO_FAKE_RUNS="+h.runs, "HAILORT_LOGGER_PATH=NONE",
		"TSAN_OPTIONS=report_thread_leaks=0") // a worker that runs out of time joins nobody
	assert.Must(t, h.cmd.Start())
	go func() {
		_ = h.cmd.Wait() // its result is in ProcessState
		close(h.ended)
	}()
	t.Cleanup(h.close)
	return h
}

// close ends a worker that the test left running, and looks at what it said. A test that wants
// an exit status has called exit.
func (h *host) close() {
	h.conn.Close()
	select {
	case <-h.ended:
	case <-time.After(patience):
		_ = h.cmd.Process.Kill()
		<-h.ended
		h.t.Error("the worker outlived its host")
	}
	_ = unix.Munmap(h.memory.Data)
	for _, bad := range []string{"Sanitizer", "runtime error", "misuse", "terminate called"} {
		if strings.Contains(h.stderr.String(), bad) {
			h.t.Errorf("the worker said %q:\n%s", bad, h.stderr)
			return
		}
	}
	assert.True(h.t, h.cmd.ProcessState.Exited(), "the worker ended with %v:\n%s", h.cmd.ProcessState, h.stderr)
}

// exit waits for the end of the worker and checks its status and its last line.
func (h *host) exit(status int, words string) {
	h.t.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		if _, err := h.receive(); err != nil {
			break // answers that nobody wanted
		}
	}
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.t.Fatalf("the worker does not end; it said:\n%s", h.stderr)
	}
	assert.Equal(h.t, h.cmd.ProcessState.ExitCode(), status, "the worker said:\n%s\nexit status", h.stderr)
	assert.True(h.t, strings.Contains(h.stderr.String(), words), "the worker said %q, want %q in it", h.stderr, words)
}

// write sends a packet as it is. The worker may be gone by then.
func (h *host) write(packet []byte) {
	h.t.Helper()
	assert.Must(h.t, h.conn.SetWriteDeadline(time.Now().Add(patience)))
	if _, err := h.conn.Write(packet); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		h.t.Fatalf("write: %v; the worker said:\n%s", err, h.stderr)
	}
}

// receive returns the next message, with statistics when nothing else comes.
func (h *host) receive() (any, error) {
	if err := h.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	buf := make([]byte, wire.MaxPacket+1)
	n, err := h.conn.Read(buf)
	if errors.Is(err, unix.ECONNRESET) {
		// The worker has ended without reading all submits. Linux says so before it gives what the worker wrote.
		n, err = h.conn.Read(buf)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("the worker has closed its end")
	}
	m, err := wire.Parse(buf[:n])
	assert.MustTrue(h.t, err == nil, "%v: % x", err, buf[:min(n, 64)])
	if s, ok := m.(*wire.Stats); ok {
		h.stats = s
	}
	return m, nil
}

// want returns the next message of a type, over statistics.
func want[M any](h *host) M {
	h.t.Helper()
	for limit := time.Now().Add(patience); ; {
		m, err := h.receive()
		assert.MustTrue(h.t, err == nil, "%v; the worker said:\n%s", err, h.stderr)
		if m, ok := m.(M); ok {
			return m
		}
		if _, ok := m.(*wire.Stats); !ok || time.Now().After(limit) {
			h.t.Fatalf("got %T, want %T", m, *new(M))
		}
	}
}

func (h *host) openMessage() *wire.Open {
	return &wire.Open{Magic: wire.Magic, Version: wire.Version, Memory: uint64(len(h.memory.Data))}
}

func (h *host) open() *wire.Hello {
	h.t.Helper()
	h.write(wire.Append(nil, h.openMessage()))
	return want[*wire.Hello](h)
}

// loadMessage asks for a model as the service does.
func (h *host) loadMessage(id uint32) *wire.Load {
	load := h.memory.Load[id]
	load.Batch, load.Priority, load.TimeoutMS = 8, 16+id, 2
	if id == wire.TextModel {
		load.Batch, load.Threshold = 4, 4
	}
	wire.SetText(load.HEF[:], h.hefs[id])
	return &load
}

func (h *host) load(load *wire.Load) *wire.Loaded {
	h.t.Helper()
	h.write(wire.Append(nil, load))
	return want[*wire.Loaded](h)
}

// ready opens the device and loads both models.
func (h *host) ready() *book {
	h.t.Helper()
	hello := h.open()
	assert.MustTrue(h.t, hello.Status == wire.Success, "hello: %v: %v", hello.Status, hello.Text)
	for id, m := range h.models {
		if m.hef == "" {
			continue
		}
		loaded := h.load(h.loadMessage(uint32(id)))
		assert.MustTrue(h.t, loaded.Status == wire.Success, "loaded: %v: %v", loaded.Status, loaded.Text)
	}
	return newBook(h)
}

// doneWell takes the answer of a frame that succeeds.
func (h *host) doneWell() *wire.Done {
	h.t.Helper()
	done := want[*wire.Done](h)
	assert.Equal(h.t, done.Status, wire.Success, "%+v", done)
	return done
}

// submit fills a slot with a frame that the sequence decides, and submits it.
func (h *host) submit(id, slot uint32, sequence uint64) {
	h.t.Helper()
	if int(slot) < h.models[id].slots {
		copy(h.memory.Input(int(id), int(slot)), frame(h.models[id], sequence))
	}
	h.submitOf(id, slot, sequence, max(1, h.loadMessage(id).Threshold))
}

// submitOf is submit of what lies in the slot, one of a group of so many.
func (h *host) submitOf(id, slot uint32, sequence uint64, group uint32) {
	h.t.Helper()
	h.write(wire.Append(nil, &wire.Submit{Model: id, Slot: slot, Sequence: sequence, Threshold: group}))
}

// output is the frame that the chip has put into a slot.
func (h *host) output(id, slot uint32) []byte {
	return h.memory.Output(int(id), int(slot))[:h.models[id].out]
}

// taken waits until the worker has read every packet.
func (h *host) taken() {
	h.t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		unread := 0
		h.control(func(fd int) (err error) {
			unread, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			return err
		})
		assert.MustTrue(h.t, !time.Now().After(limit), "the worker does not read: %d bytes", unread)
		if unread == 0 {
			return
		}
	}
}

// control calls f with the descriptor of the socket, which stays non-blocking.
func (h *host) control(f func(fd int) error) {
	h.t.Helper()
	raw, err := h.conn.SyscallConn()
	assert.Must(h.t, err)
	e := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	assert.MustTrue(h.t, e == nil && err == nil, "%v %v", e, err)
}

// shutdown closes our side of the socket; answers still come.
func (h *host) shutdown() {
	h.t.Helper()
	h.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// finish is an orderly end.
func (h *host) finish() {
	h.t.Helper()
	h.shutdown()
	h.exit(exitDone, "")
}

// frame is an input that no other sequence has.
func frame(m model, sequence uint64) []byte {
	b := make([]byte, m.in)
	for i := range b {
		b[i] = byte(uint64(i)*7 + sequence)
	}
	binary.LittleEndian.PutUint64(b, sequence)
	return b
}

// encode is what the chip of the fake makes of an input: see infer in fake_chip.hpp.
func encode(m model, input []byte) []byte {
	h := uint64(14695981039346656037)
	for len(input) > 0 {
		var word [8]byte
		input = input[copy(word[:], input):]
		h = (h ^ binary.LittleEndian.Uint64(word[:])) * 1099511628211
	}
	out := make([]byte, m.out)
	for i := range out {
		z := h + uint64(i+1)*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		out[i] = byte(z >> 56)
	}
	return out
}

// A book knows what is in flight: every submit gets exactly one answer.
type book struct {
	h        *host
	inFlight map[uint64]wire.Submit
	free     [2][]uint32
	last     uint64
}

func newBook(h *host) *book {
	b := &book{h: h, inFlight: map[uint64]wire.Submit{}}
	for id, m := range h.models {
		for s := range m.slots {
			b.free[id] = append(b.free[id], uint32(s))
		}
	}
	return b
}

func (b *book) submit(id uint32) {
	b.h.t.Helper()
	slot := b.free[id][0]
	b.free[id] = b.free[id][1:]
	b.last++
	b.inFlight[b.last] = wire.Submit{Model: id, Slot: slot, Sequence: b.last}
	b.h.submit(id, slot, b.last)
}

// fill submits n frames of each model.
func (b *book) fill(n int, ids ...uint32) {
	b.h.t.Helper()
	for range n {
		for _, id := range ids {
			b.submit(id)
		}
	}
}

// takeGood takes n answers, of frames that succeed.
func (b *book) takeGood(n int) {
	b.h.t.Helper()
	for range n {
		if done := b.done(); done.Status != wire.Success {
			b.h.t.Errorf("done %+v", done)
		}
	}
}

// done takes one answer and checks it: it belongs to a submit, and the output to its input.
func (b *book) done() *wire.Done {
	b.h.t.Helper()
	done := want[*wire.Done](b.h)
	b.take(done)
	return done
}

func (b *book) take(done *wire.Done) {
	b.h.t.Helper()
	submitted, ok := b.inFlight[done.Sequence]
	if !ok || submitted.Model != done.Model || submitted.Slot != done.Slot {
		b.h.t.Fatalf("done %+v, submitted %+v (%v)", done, submitted, ok)
	}
	delete(b.inFlight, done.Sequence)
	b.free[done.Model] = append(b.free[done.Model], done.Slot)
	if m := b.h.models[done.Model]; done.Status == wire.Success &&
		!bytes.Equal(b.h.output(done.Model, done.Slot), encode(m, frame(m, done.Sequence))) {
		b.h.t.Fatalf("the output of sequence %d is not that of its input", done.Sequence)
	}
}

// rest takes answers until the worker ends, and counts them by status.
func (b *book) rest() map[wire.Code]int {
	b.h.t.Helper()
	got := map[wire.Code]int{}
	for limit := time.Now().Add(patience); ; {
		m, err := b.h.receive()
		if err != nil {
			return got
		}
		assert.MustTrue(b.h.t, !time.Now().After(limit), "the worker does not end; answers by status: %v", got)
		switch m := m.(type) {
		case *wire.Done:
			b.take(m)
			got[m.Status]++
		case *wire.Stats:
		default:
			b.h.t.Fatalf("unexpected %T", m)
		}
	}
}
