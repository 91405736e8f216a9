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
	// socketMode lets the user and the group that the service runs as connect.
	socketMode = 0o660
	// maxSocketPath is the longest path of a Unix socket, in bytes.
	maxSocketPath = 107
	// lockTime is how long to wait for another process that is opening a socket in the same folder.
	lockTime = 2 * time.Second
)

// unixSocket is a listener that removes the file of its socket when it closes, unless another process has replaced that.
type unixSocket struct {
	*net.UnixListener
	path    string
	made    fs.FileInfo // the file as ListenSocket made it
	removed sync.Once   // once removed, its inode may be that of a successor's file
}

// ListenSocket opens the Unix socket at c.Socket, which must not be "". It replaces a socket on which nobody listens any more. It
// leaves anything else there alone and fails, with EADDRINUSE where somebody listens or may. It blocks for some seconds at most.
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
	if err = os.Chmod(s.path, socketMode); err == nil { // whatever the umask is
		s.made, err = os.Lstat(s.path)
	}
	if err != nil {
		return nil, fmt.Errorf("server.socket: %w", errors.Join(err, s.UnixListener.Close(), os.Remove(s.path)))
	}
	return s, nil
}

// lockFolder keeps other processes out of ListenSocket for the folder, until the file that it returns is closed.
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

// Withdraw implements withdraws: it removes the file. Clients that have connected still wait to be accepted.
func (s *unixSocket) Withdraw() {
	s.removed.Do(func() {
		if found, err := os.Lstat(s.path); err == nil && os.SameFile(found, s.made) {
			_ = os.Remove(s.path) // fails where the folder is no longer writable
		}
	})
}

// Close removes the file and closes the listener.
func (s *unixSocket) Close() error {
	s.Withdraw()
	return s.UnixListener.Close()
}

// validSocket says whether a path may be in Config.Socket.
func validSocket(path string) bool {
	return path == "" || filepath.IsAbs(path) && filepath.Clean(path) == path && len(path) <= maxSocketPath
}

// peerOf returns the fair.Caller.Address of the client of a Unix socket: "local:" and its user id, or "local" if that is not known.
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
