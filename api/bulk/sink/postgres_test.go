package sink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lib/pq"

	"hailoclip/api/bulk"
)

var tables atomic.Int64

// tableOf is an address with a table that nobody has used.
func tableOf(address string) string {
	return fmt.Sprintf("%s&table=t%d", address, tables.Add(1))
}

// startPostgres starts a cluster of its own, which ends with the test, and returns the address of its database with TLS.
func startPostgres(t *testing.T) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed: make sinks-test")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir := must[string](t)(os.MkdirTemp("", "hailo-postgres-*"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // PostgreSQL refuses root
		who, err := user.Lookup("postgres")
		if err != nil {
			t.Skip(err)
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		noError(t, os.Chown(dir, uid, gid))
		defer func() {
			for _, name := range []string{"server.key", "server.crt", "password"} {
				_ = os.Chown(filepath.Join(dir, name), uid, gid)
			}
		}()
	}
	noError(t, os.Chmod(dir, 0o755))
	run := func(name string, arguments ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), arguments...)
		cmd.SysProcAttr, cmd.Dir, cmd.Env = as, dir, []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}
		return cmd
	}
	noError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("s3cret/pass word"), 0o644))
	if out, err := run("initdb", "-D", "data", "-U", "clip", "--auth=scram-sha-256", "--pwfile=password", "-E", "UTF8").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v, %s", err, out)
	}
	certificate(t, dir, as)
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")) // PostgreSQL chooses no free port
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	server := run("postgres", "-D", "data", "-k", dir, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
		"-c", "ssl=on", "-c", "ssl_cert_file="+dir+"/server.crt", "-c", "ssl_key_file="+dir+"/server.key", "-c", "shared_buffers=16MB")
	var log bytes.Buffer
	server.Stderr = &log
	noError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGINT) // fast shutdown
		_ = server.Wait()
		if t.Failed() {
			t.Logf("%.4000s", log.String())
		}
	})
	address := fmt.Sprintf("postgres://clip:s3cret%%2Fpass%%20word@127.0.0.1:%d/postgres?sslmode=verify-full&sslrootcert=%s", port,
		url.QueryEscape(filepath.Join(dir, "server.crt")))
	db := query(t, address)
	for end := time.Now().Add(time.Minute); ; {
		if err := db.Ping(); err == nil {
			return address
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // the server is starting
	}
}

// certificate writes server.crt, which is its own authority, and server.key.
func certificate(t *testing.T, dir string, as *syscall.SysProcAttr) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	write := func(name, kind string, der []byte) {
		path := filepath.Join(dir, name)
		noError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		if as.Credential != nil {
			noError(t, os.Chown(path, int(as.Credential.Uid), int(as.Credential.Gid)))
		}
	}
	write("server.crt", "CERTIFICATE", der)
	write("server.key", "PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key)))
	noError(t, os.Chmod(filepath.Join(dir, "server.crt"), 0o644))
}

// query opens the database at an address by itself.
func query(t *testing.T, address string) *sql.DB {
	db := sql.OpenDB(must[*pq.Connector](t)(pq.NewConnector(address)))
	t.Cleanup(func() { db.Close() })
	return db
}

func value(t *testing.T, db *sql.DB, query string, arguments ...any) (s string) {
	t.Helper()
	noError(t, db.QueryRow(query, arguments...).Scan(&s))
	return s
}

func TestPostgres(t *testing.T) {
	address := startPostgres(t)
	db := query(t, address)
	conform(t, kind{many: 100_000}, func(*testing.T) string { return tableOf(address) })

	t.Run("Columns", func(t *testing.T) {
		s := openSink(t, address) // the table of the default name
		defer s.Close()
		row := rowOf(1)
		row.Matches = []bulk.Match{{Label: "cat", Score: 0.5}}
		noError(t, s.Put(t.Context(), []bulk.Row{row}))
		if got := value(t, db, `SELECT pg_typeof(embedding)::text || array_length(embedding, 1) || (classifications->0->>'label') FROM vectors`); got != "real[]8cat" {
			t.Error(got)
		}
	})

	t.Run("NoInjection", func(t *testing.T) {
		_, err := db.Exec(`CREATE TABLE victim (a int)`)
		noError(t, err)
		for i, name := range []string{`v"; DROP TABLE victim; --`, `v'; DROP TABLE victim; --`, `v; DROP TABLE victim`, `public.v" (a int); DROP TABLE victim; --`,
			`$1`, "ünï", `select`, `v"w`, `UPPER`} {
			s := openSink(t, address+"&table="+url.QueryEscape(name))
			noError(t, s.Put(t.Context(), []bulk.Row{rowOf(i)}))
			kind{}.found(t, s, rowOf(i))
			noError(t, s.Close())
			want := name[strings.Index(name, ".")+1:]
			if got := value(t, db, `SELECT count(*)::text FROM pg_tables WHERE tablename = $1`, want); got != "1" {
				t.Errorf("there are %s tables %q", got, want)
			}
		}
		value(t, db, `SELECT count(*)::text FROM victim`)
		for _, name := range []string{"a.b.c", ".a", "a.", strings.Repeat("x", 64), "a\x00b", "\xff"} {
			_, err := Open(t.Context(), address+"&table="+url.QueryEscape(name), Options{Dimension: dimension})
			says(t, err, "is not the name of a table")
		}
	})

	t.Run("ForeignTable", func(t *testing.T) {
		_, err := db.Exec(`CREATE TABLE foreign_one (key text, path text, model text)`)
		noError(t, err)
		_, err = Open(t.Context(), address+"&table=foreign_one", Options{Dimension: dimension})
		says(t, err, "has no column")
	})

	t.Run("NothingIsMadeUnasked", func(t *testing.T) {
		s := must[bulk.Sink](t)(Open(t.Context(), address+"&table=none", Options{}))
		defer s.Close()
		if all := contents(t, s); len(all) != 0 {
			t.Error(all)
		}
		says(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}), "no table")
		if got := value(t, db, `SELECT count(*)::text FROM pg_tables WHERE tablename = 'none'`); got != "0" {
			t.Error("it was made")
		}
	})

	t.Run("ConnectionLost", func(t *testing.T) {
		s := openSink(t, tableOf(address))
		defer s.Close()
		for i := range 20 {
			_, err := db.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`)
			noError(t, err)
			noError(t, s.Put(t.Context(), []bulk.Row{rowOf(i)}))
		}
		if n := len(contents(t, s)); n != 20 {
			t.Errorf("%d rows", n)
		}
	})

	t.Run("Stopped", func(t *testing.T) {
		s := openSink(t, tableOf(address))
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Put(ctx, []bulk.Row{rowOf(1)}); !errors.Is(err, context.Canceled) {
			t.Errorf("Put with a context that has ended: %v", err)
		}
	})

	t.Run("Passwords", func(t *testing.T) {
		u := must[*url.URL](t)(url.Parse(address))
		for _, wrong := range []string{
			strings.Replace(address, "s3cret", "wr0ng-s3cret", 1),
			strings.Replace(address, "sslmode=verify-full", "sslmode=s3cret", 1),
			strings.Replace(address, u.Host, "127.0.0.1:1", 1),
			strings.Replace(address, "/postgres?", "/nowhere?", 1),
			strings.Replace(address, "127.0.0.1:", "127.0.0.1:9", 1),
			address + "&sslrootcert=/none&password=wr0ng-s3cret",
		} {
			_, err := Open(t.Context(), wrong, Options{Dimension: dimension})
			if err == nil || strings.Contains(err.Error(), "s3cret/") || strings.Contains(err.Error(), "s3cret%2F") || strings.Contains(err.Error(), "wr0ng") {
				t.Errorf("the error is %v", err)
			}
		}
	})

	t.Run("Socket", func(t *testing.T) {
		u := must[*url.URL](t)(url.Parse(address))
		values := url.Values{"host": {filepath.Dir(u.Query().Get("sslrootcert"))}, "port": {u.Port()}, "sslmode": {"disable"}, "table": {"by_socket"}}
		s := openSink(t, (&url.URL{Scheme: "postgresql", User: u.User, Path: "/postgres", RawQuery: values.Encode()}).String())
		defer s.Close()
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
	})

	t.Run("TLS", func(t *testing.T) {
		other := t.TempDir()
		certificate(t, other, &syscall.SysProcAttr{})
		u := must[*url.URL](t)(url.Parse(address))
		values := u.Query()
		values.Set("sslrootcert", filepath.Join(other, "server.crt"))
		u.RawQuery = values.Encode()
		_, err := Open(t.Context(), u.String(), Options{Dimension: dimension})
		says(t, err, "certificate")
	})
}

// TestPGlite has a PostgreSQL with pgvector: npm's, behind its socket server.
func TestPGlite(t *testing.T) {
	modules := os.Getenv("HAILO_TEST_SINKS_NPM")
	if modules == "" {
		t.Skip("make sinks-test")
	}
	cmd := exec.Command("node", must[string](t)(filepath.Abs("testdata/pglite.mjs")))
	cmd.Env = append(os.Environ(), "MODULES="+modules)
	cmd.Stderr = os.Stderr
	in, out := must[interface{ Close() error }](t)(cmd.StdinPipe()), must[interface{ Read([]byte) (int, error) }](t)(cmd.StdoutPipe())
	noError(t, cmd.Start())
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	port := strings.TrimSpace(must[string](t)(bufio.NewReader(out).ReadString('\n')))
	address := "postgres://postgres:postgres@127.0.0.1:" + port + "/postgres?sslmode=disable"
	conform(t, kind{many: 20_000}, func(*testing.T) string { return tableOf(address) })

	t.Run("Columns", func(t *testing.T) {
		s := openSink(t, address)
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1), rowOf(2), rowOf(3)}))
		noError(t, s.Close())
		db := query(t, address)
		if got := value(t, db, `SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'vectors'::regclass AND attname = 'embedding'`); got != "vector(8)" {
			t.Error(got)
		}
		_, err := db.Exec(`CREATE INDEX ON vectors USING hnsw (embedding vector_cosine_ops)`)
		noError(t, err)
		literal := (&postgresSink{}).text(vector(2))
		if got := value(t, db, `SELECT path FROM vectors ORDER BY embedding <=> $1::vector LIMIT 1`, literal); got != rowOf(2).Path {
			t.Error(got)
		}
	})

	t.Run("HalfPrecision", func(t *testing.T) {
		db := query(t, address)
		_, err := db.Exec(`CREATE TABLE half (key text, path_hash uuid, path text, model text, embedding halfvec(8), classifications jsonb, error text, PRIMARY KEY (key, path_hash))`)
		noError(t, err)
		noError(t, db.Close())
		s := openSink(t, address+"&table=half")
		defer s.Close()
		noError(t, s.Put(t.Context(), []bulk.Row{rowOf(1)}))
		row, _, err := s.Find(t.Context(), keyOf(1))
		noError(t, err)
		if diff := cmp.Diff(len(row.Embedding), dimension); diff != "" {
			t.Error(diff)
		}
	})
}
