package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketUnit has the address as systemd writes it, and systemd finds nothing wrong with it.
func TestSocketUnit(t *testing.T) {
	for host, want := range map[string]string{
		"0.0.0.0": "0.0.0.0:5000", "": "5000", "::": "5000", "::1": "[::1]:5000", "127.0.0.1": "127.0.0.1:5000",
	} {
		c := mustLoad(t, "", "HAILO_CLIP_SERVER_HOST="+host)
		unit := c.SocketUnit()
		if !strings.Contains(unit, "\nListenStream="+want+"\nFileDescriptorName=http\n") {
			t.Errorf("%q: %s", host, unit)
		}
		program, err := exec.LookPath("systemd-analyze")
		if err != nil {
			continue
		}
		dir := t.TempDir()
		for name, text := range map[string]string{
			"hailo-clip.socket": unit, "hailo-clip.service": "[Service]\nExecStart=/bin/true\nType=notify\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command(program, "verify", "--man=no", filepath.Join(dir, "hailo-clip.socket")).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%q: %v %s", host, err, out)
		}
	}
}
