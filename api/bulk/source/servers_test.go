package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// servers are real ones, which serve a folder at a port.
var servers = map[string]func(t *testing.T, dir, port string) *exec.Cmd{
	"python3": func(t *testing.T, dir, port string) *exec.Cmd {
		return exec.Command("python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", dir, port)
	},
	"caddy": func(t *testing.T, dir, port string) *exec.Cmd {
		return exec.Command("caddy", "file-server", "--browse", "--root", dir, "--listen", "127.0.0.1:"+port)
	},
	"nginx":       func(t *testing.T, dir, port string) *exec.Cmd { return nginx(t, dir, port, "html") },
	"nginx, JSON": func(t *testing.T, dir, port string) *exec.Cmd { return nginx(t, dir, port, "json") },
}

func nginx(t *testing.T, dir, port, format string) *exec.Cmd {
	own := t.TempDir()
	write(t, own, map[string]string{"nginx.conf": fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr; events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen 127.0.0.1:%[2]s; root %[3]s; autoindex on; autoindex_format %[4]s; } }`, own, port, dir, format)})
	return exec.Command("nginx", "-e", "stderr", "-c", own+"/nginx.conf")
}

// startServer starts a server, and waits until it answers.
func startServer(t *testing.T, command func(t *testing.T, dir, port string) *exec.Cmd, dir string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	_, port, _ := net.SplitHostPort(host)
	l.Close()
	cmd := command(t, dir, port)
	if _, err := exec.LookPath(cmd.Args[0]); err != nil {
		t.Skip("there is no ", cmd.Args[0])
	}
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	done := make(chan struct{})
	go func() { cancel(errors.Join(cmd.Wait(), errors.New("it has ended"))); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	for {
		conn, err := net.DialTimeout("tcp", host, time.Second)
		if err == nil {
			conn.Close()
			return "http://" + host + "/"
		}
		select {
		case <-ended.Done():
			t.Fatal(context.Cause(ended))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestServers(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			names := []string{"a b%.png", "img2.jpg", "img10.jpg", `ü+&;'"<>.jpg`, "#?.jpg", "a:b.jpg", "%41.jpg", "sub/c.jpg", "sub/d/e.JPEG", strings.Repeat("long", 60) + ".jpg"}
			files := map[string]string{".hidden.jpg": "", "notes.txt": ""}
			for _, name := range names {
				files[name] = name
			}
			write(t, dir, files)
			if err := os.Symlink(".", filepath.Join(dir, "loop")); err != nil {
				t.Fatal(err)
			}
			s := openFast(t, startServer(t, server, dir), Options{})
			items, err := all(t, s)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range items {
				b, err := item.Open(t.Context())
				switch {
				case err != nil:
					got = append(got, "failed: "+err.Error())
				case item.Size != int64(len(b)) || time.Since(item.Modified).Abs() > 25*time.Hour:
					t.Errorf("%s: %d bytes of %v, has %d", item.Path, item.Size, item.Modified, len(b))
				default:
					got = append(got, string(b))
				}
			}
			want := append(slices.Clone(names), "failed: it has what a folder above it has, so it is that")
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
