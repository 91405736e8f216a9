package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketMode lets the user and the group of the service connect.
	socketMode = 0o660
	// maxSocketPath is what an address of a Unix socket has room for.
	maxSocketPath = 107
	// lockTime is how long another start of the service in the same folder may take to open its socket.
	lockTime = 2 * time.Second
)

// unixSocket is a listener on a path, which it removes at its end, if that is still its own.
type unixSocket struct {
	*net.UnixListener
	path     string
	made     fs.FileInfo
	withdraw func()
}

// ListenSocket opens the Unix socket that is configured; it must be. The socket of a service that has ended without removing it is
// replaced; what is no socket, or where somebody answers, is left alone, and an error (EADDRINUSE).
func (c Config) ListenSocket() (net.Listener, error) {
	folder, err := lockFolder(filepath.Dir(c.Socket))
	if err != nil {
		return nil, fmt.Errorf("server.socket: %w", err)
	}
	defer folder.Close() // and unlock
	if err := removeStale(c.Socket); err != nil {
		return nil, fmt.Errorf("server.socket: %s: %w", c.Socket, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }), err) // of the file that it will have
	}}
	ln, err := lc.Listen(context.Background(), "unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("server.socket: %w", err)
	}
	s := &unixSocket{UnixListener: ln.(*net.UnixListener), path: c.Socket}
	s.SetUnlinkOnClose(false)
	s.withdraw = sync.OnceFunc(s.remove)
	if err = os.Chmod(s.path, socketMode); err == nil { // whatever the umask is
		s.made, err = os.Lstat(s.path)
	}
	if err != nil {
		err = fmt.Errorf("server.socket: %w", errors.Join(err, s.UnixListener.Close(), os.Remove(s.path)))
		return nil, err
	}
	return s, nil
}

// lockFolder keeps other services from looking for stale sockets in the folder, until the file is closed.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockTime); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return nil, errors.Join(&fs.PathError{Op: "lock", Path: dir, Err: err}, f.Close())
		}
	}
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("is there and no socket; it is left alone")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%w: somebody answers there", unix.EADDRINUSE)
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: it cannot be seen whether somebody answers there: %w", unix.EADDRINUSE, err)
	}
	return os.Remove(path)
}

// remove removes the file, unless another process has put its own there.
func (s *unixSocket) remove() {
	if found, err := os.Lstat(s.path); err == nil && os.SameFile(found, s.made) {
		_ = os.Remove(s.path) // it may be gone, or the folder not ours any more
	}
}

// Withdraw removes the file, so that nobody connects any more; who has, waits to be accepted.
func (s *unixSocket) Withdraw() { s.withdraw() }

// Close removes the file, too.
func (s *unixSocket) Close() error {
	s.Withdraw()
	return s.UnixListener.Close()
}

// withdraws is a listener that can keep newcomers from connecting.
type withdraws interface{ Withdraw() }

// validSocket says whether a path can be that of a socket.
func validSocket(path string) bool {
	return path == "" || filepath.IsAbs(path) && filepath.Clean(path) == path && len(path) <= maxSocketPath
}

// peerOf names the user at the other end of a Unix socket, as callers are named.
func peerOf(nc net.Conn) string {
	const local = "local"
	raw := rawConn(nc)
	if _, ok := nc.(*net.UnixConn); !ok || raw == nil {
		return local
	}
	name := local
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			name += ":" + strconv.FormatUint(uint64(peer.Uid), 10)
		}
	})
	return name
}
