package npu

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hailoclip/hailo/npu/wire"
)

// memory is the memfd that all frames are in, mapped for as long as it lives.
type memory struct {
	file *os.File
	data []byte
	load [models]wire.Load // for each model: how many slots there are, and where
}

// newMemory makes a memfd with count[m] slots for model m, whose frames are at most in[m] and
// out[m] bytes. Every frame starts on a page, so that the driver can use it in place. Pages
// that nobody touches cost nothing.
func newMemory(count, in, out [models]int) (*memory, error) {
	page := os.Getpagesize()
	m := &memory{}
	size := 0
	place := func(count, bytes int) (offset, stride uint64) {
		start, step := size, (bytes+page-1)/page*page
		size += step * count
		return uint64(start), uint64(step)
	}
	for i := range m.load {
		l := &m.load[i]
		l.Model, l.Slots = uint32(i), uint32(count[i])
		l.InputOffset, l.InputStride = place(count[i], in[i])
		l.OutputOffset, l.OutputStride = place(count[i], out[i])
	}
	fd, err := unix.MemfdCreate("hailo-clip-frames", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("frames: memfd: %w", err)
	}
	m.file = os.NewFile(uintptr(fd), "hailo-clip-frames")
	if err := m.file.Truncate(int64(size)); err != nil {
		m.file.Close()
		return nil, fmt.Errorf("frames: %d bytes: %w", size, err)
	}
	// Sealed: a worker gone mad cannot shrink the file under us, which would be a SIGBUS here.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		m.file.Close()
		return nil, fmt.Errorf("frames: seal: %w", err)
	}
	m.data, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		m.file.Close()
		return nil, fmt.Errorf("frames: map %d bytes: %w", size, err)
	}
	return m, nil
}

// input and output return the memory of a slot.
func (m *memory) input(model, slot int) []byte  { return m.load[model].Input(m.data, slot) }
func (m *memory) output(model, slot int) []byte { return m.load[model].Output(m.data, slot) }
