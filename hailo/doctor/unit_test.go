package doctor

import (
	"testing"
)

func TestServiceInstalled(t *testing.T) {
	for name, c := range map[string]struct {
		machine files
		want    bool
	}{
		"nothing": {pi(), false},
		"unit":    {files{"/etc/systemd/system/hailo-clip.service": "[Service]\n"}, true},
		"models":  {files{"/var/lib/hailo-clip/": folder}, true},
		"dynamic": {files{"/var/lib/hailo-clip": link + "private/hailo-clip"}, true}, // which only root can follow
	} {
		if got := ServiceInstalled(c.machine.write(t)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestOwn(t *testing.T) {
	for state, want := range map[string]string{
		"":           "hailo-clip models pull m",
		ServiceState: "sudo hailo-clip models pull m --state-dir /var/lib/hailo-clip",
		"/my models": "hailo-clip models pull m --state-dir '/my models'",
	} {
		if got := (Env{State: state}).Own("models pull m"); got != want {
			t.Errorf("state %q: %s", state, got)
		}
	}
}
