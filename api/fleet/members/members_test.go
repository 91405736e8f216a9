package members

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// started is a folder as a broker leaves it.
func started(t testing.TB) Dir {
	d := Dir(t.TempDir())
	if _, err := d.Authority(); err != nil {
		t.Fatal(err)
	}
	if err := d.SetAddress("tls://broker:4222", ""); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNodesAreAddedAndRemoved(t *testing.T) {
	d := started(t)
	own, err := d.Add("b", false, "")
	if err != nil {
		t.Fatal(err)
	}
	read, err := Parse(own.Text())
	if err != nil || read.Node != "b" || read.URL != "tls://broker:4222" || read.Seed != own.Seed || !bytes.Equal(read.CA, own.CA) {
		t.Errorf("%+v, %v", read, err)
	}
	if _, err := d.Add("b", false, ""); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if _, err := d.Add("a", false, "tls://other:1"); err != nil {
		t.Error(err)
	}
	nodes, err := d.Nodes()
	if err != nil || len(nodes) != 2 || nodes[0].Name != "a" || nodes[1].Name != "b" {
		t.Error(nodes, err)
	}
	public, _ := own.Public()
	if nodes[1].Key != public {
		t.Error("the key is another")
	}
	if err := d.Remove("b"); err != nil {
		t.Error(err)
	}
	if err := d.Remove("b"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// Several commands at a time lose no node.
func TestNodesAreAddedAtOnce(t *testing.T) {
	d := started(t)
	var all sync.WaitGroup
	for _, name := range strings.Fields("a b c d e f g h") {
		all.Go(func() {
			if _, err := d.Add(name, false, ""); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if nodes, err := d.Nodes(); err != nil || len(nodes) != 8 {
		t.Error(nodes, err)
	}
}

func TestAddRefuses(t *testing.T) {
	if _, err := Dir(t.TempDir()).Add("a", false, ""); !errors.Is(err, ErrNoBroker) {
		t.Error(err)
	}
	d := started(t)
	for name, url := range map[string]string{"": "", "a.b": "", ">": "", "a": "nats://broker:4222", "b": "tls://u:p@broker:4222", "c": "tls://broker"} {
		if _, err := d.Add(name, false, url); err == nil {
			t.Errorf("%q at %q is added", name, url)
		}
	}
	if nodes, _ := d.Nodes(); len(nodes) > 0 {
		t.Error(nodes)
	}
}

// A list that a broker cannot read is an error, not an empty fleet.
func TestDamagedListIsAnError(t *testing.T) {
	key := "UB5GGWDOENV7CNBGLF5AY3SF2OSIPG4LRVCIDUSTYYUMREXPCKRGDUXS"
	for _, text := range []string{
		"", "{", `[{"name":"a"}]`, `[{"name":"a b","key":"` + key + `"}]`, `[{"name":"a","key":"` + key + `"},{"name":"a","key":"` + key + `"}]`,
		`[{"name":"a","key":"` + key + `","admin":true}]`,
	} {
		d := started(t)
		if err := os.WriteFile(d.file(nodesFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if nodes, err := d.Nodes(); err == nil {
			t.Errorf("%s: %v", text, nodes)
		}
	}
}

func TestAuthorityStays(t *testing.T) {
	d := started(t)
	before, err := os.ReadFile(d.file(caFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Authority(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(d.file(caFile)); !bytes.Equal(before, after) {
		t.Error("it is another")
	}
	if info, err := os.Stat(d.file(caKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if err := os.Remove(d.file(caKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Authority(); err == nil {
		t.Error("a new authority takes the place of one whose key is lost")
	}
}

func TestCertificatesAreRenewed(t *testing.T) {
	a, err := started(t).Authority()
	if err != nil {
		t.Fatal(err)
	}
	now, hosts := time.Now(), []string{"one"}
	get := renewing(a, func() []string { return hosts }, 24*time.Hour, func() time.Time { return now })
	serial := func() string {
		c, err := get()
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := serial()
	if now = now.Add(11 * time.Hour); serial() != first {
		t.Error("it is renewed too early")
	}
	now = now.Add(2 * time.Hour)
	second := serial()
	if second == first {
		t.Error("it is not renewed")
	}
	now, hosts = now.Add(2*time.Minute), []string{"one", "192.0.2.1"}
	if c, _ := get(); serial() == second || c.Leaf.VerifyHostname("192.0.2.1") != nil || c.Leaf.VerifyHostname("two") == nil {
		t.Error("a new address is not in it")
	}
}

func TestReadFile(t *testing.T) {
	own, err := started(t).Add("a", false, "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.creds")
	if err := WriteSecret(path, own.Text()); err != nil {
		t.Fatal(err)
	}
	if _, warning, err := ReadFile(path); err != nil || warning != "" {
		t.Error(warning, err)
	}
	if err := WriteSecret(path, nil); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("#\n"), maxCredentials), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadFile(path); err == nil {
		t.Error("a large file is read")
	}
}

func FuzzParse(f *testing.F) {
	own, err := started(f).Add("a", false, "")
	if err != nil {
		f.Fatal(err)
	}
	good := string(own.Text())
	f.Add(good)
	for _, bad := range []string{
		"", "node a", strings.Replace(good, "node a", "node a\nnode b", 1), strings.Replace(good, "tls://", "nats://", 1),
		strings.Replace(good, "seed SU", "seed SA", 1), good + "x", good[:len(good)-40], strings.Replace(good, "broker ", "other ", 1),
		strings.Replace(good, "CERTIFICATE-----\n", "CERTIFICATE-----\nAAAA", 1),
	} {
		if _, err := Parse([]byte(bad)); err == nil {
			f.Errorf("%q is read", bad)
		} else if strings.Contains(err.Error(), own.Seed) {
			f.Errorf("the error has the seed: %v", err)
		}
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse([]byte(text))
		if err != nil {
			return
		}
		again, err := Parse(c.Text())
		if err != nil || again.Node != c.Node || again.URL != c.URL || again.Seed != c.Seed || !bytes.Equal(again.CA, c.CA) {
			t.Errorf("%+v is read as %+v, %v", c, again, err)
		}
		if _, err := c.Sign([]byte("nonce")); err != nil {
			t.Error(err)
		}
	})
}
