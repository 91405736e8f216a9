package wire

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Memory is the host's side of the shared memory: the memfd that all frames are in, mapped.
type Memory struct {
	File *os.File
	Data []byte
	Load [Models]Load // for each model: how many slots there are, and where
}

// NewMemory makes a memfd with count[m] slots for model m, whose frames are at most in[m] and
// out[m] bytes. Every frame starts on a page, so that the driver can use it in place. Pages
// that nobody touches cost nothing. The caller closes File and unmaps Data, each when nobody uses it any more.
func NewMemory(count, in, out [Models]int) (*Memory, error) {
	page := os.Getpagesize()
	m := &Memory{}
	size := 0
	place := func(count, bytes int) (offset, stride uint64) {
		start, step := size, (bytes+page-1)/page*page
		size += step * count
		return uint64(start), uint64(step)
	}
	for i := range m.Load {
		l := &m.Load[i]
		l.Model, l.Slots = uint32(i), uint32(count[i])
		l.InputOffset, l.InputStride = place(count[i], in[i])
		l.OutputOffset, l.OutputStride = place(count[i], out[i])
	}
	fd, err := unix.MemfdCreate("hailo-clip-frames", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("frames: memfd: %w", err)
	}
	m.File = os.NewFile(uintptr(fd), "hailo-clip-frames")
	if err := m.File.Truncate(int64(size)); err != nil {
		m.File.Close()
		return nil, fmt.Errorf("frames: %d bytes: %w", size, err)
	}
	// Sealed: a worker gone mad cannot shrink the file under us, which would be a SIGBUS here.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		m.File.Close()
		return nil, fmt.Errorf("frames: seal: %w", err)
	}
	m.Data, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		m.File.Close()
		return nil, fmt.Errorf("frames: map %d bytes: %w", size, err)
	}
	return m, nil
}

// Input and Output return the memory of a slot: stride bytes.
func (m *Memory) Input(model, slot int) []byte  { return m.Load[model].Input(m.Data, slot) }
func (m *Memory) Output(model, slot int) []byte { return m.Load[model].Output(m.Data, slot) }

// Pair returns the two ends of a socket: ours, on which deadlines work, and that for the worker.
func Pair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = os.NewFile(uintptr(pair[1]), "worker socket")
	if err := unix.SetNonblock(pair[0], true); err != nil {
		_ = unix.Close(pair[0])
		theirs.Close()
		return nil, nil, fmt.Errorf("socket: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "host socket"), theirs, nil
}
