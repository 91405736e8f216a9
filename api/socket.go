package api

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawConn gives access to the descriptor of a connection or listener; nil where there is none.
func rawConn(c any) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readNow reads what has arrived, without waiting for more, and returns its length.
func readNow(nc net.Conn, b []byte) (n int) {
	if raw := rawConn(nc); raw != nil {
		_ = raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), b) // nothing there is EAGAIN
			return true
		})
	}
	return max(n, 0)
}

// hungUp says that the client has closed the connection, or at least its side of it. It neither
// blocks nor takes anything from the connection.
func hungUp(nc net.Conn) (gone bool) {
	raw := rawConn(nc)
	if raw == nil {
		return false
	}
	err := raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(poll, 0)
		gone = err == nil && n > 0 // POLLERR and POLLHUP come unasked
	})
	return gone || err != nil // closed
}

// withdraws is a listener that has its own way to keep new clients from connecting. Withdraw may be called more than once.
type withdraws interface{ Withdraw() }

// dropNewcomers makes the kernel ignore new connections, which it would otherwise go on to accept
// in our name and reset when the listener closes. Their clients try again after a second, and
// find a listener that has been opened meanwhile, or none. Where the kernel cannot do that, as for
// multipath TCP, a connection may be lost between the last look into the queue and its end.
func dropNewcomers(ln net.Listener) {
	if w, ok := ln.(withdraws); ok {
		w.Withdraw()
		return
	}
	raw := rawConn(ln)
	if _, isTCP := ln.Addr().(*net.TCPAddr); raw == nil || !isTCP {
		return
	}
	filter := []unix.SockFilter{ // on TCP segments: drop those with SYN
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 13},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: 0x02},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
}
