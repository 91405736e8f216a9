package npu

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// region is where the frames of one side of a model lie in the memory.
type region struct {
	offset, stride, count int // bytes, bytes, frames
}

// memory is the memfd that the slots are in, mapped for as long as it lives.
type memory struct {
	file   *os.File
	data   []byte
	input  [models]region
	output [models]region
}

// newMemory makes a memfd with count[m] slots for model m, whose frames are at most in[m] and
// out[m] bytes. Every frame starts on a page, so that the driver can use it in place. Pages
// that nobody touches cost nothing.
func newMemory(count, in, out [models]int) (*memory, error) {
	page := os.Getpagesize()
	m := &memory{}
	size := 0
	place := func(count, bytes int) region {
		r := region{offset: size, stride: (bytes + page - 1) / page * page, count: count}
		size += r.stride * count
		return r
	}
	for i := range models {
		m.input[i] = place(count[i], in[i])
		m.output[i] = place(count[i], out[i])
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

// at is the memory of a slot.
func (m *memory) at(r region, slot int) []byte {
	start := r.offset + slot*r.stride
	return m.data[start : start+r.stride : start+r.stride]
}
