package configs

import (
	"os/exec"
	"strings"
	"testing"
)

// debVersions are what git calls versions and what Debian does, in the order of their making.
var debVersions = [][2]string{
	{"unknown", "0~7.unknown-1"},
	{"abc1234", "0~7.gabc1234-1"},
	{"abc1234-dirty", "0~7.gabc1234+dirty-1"},
	{"v0.1.0", "0.1.0-1"},
	{"v1.2.0-rc1", "1.2.0~rc1-1"},
	{"v1.2.0-rc1-9-gabc1234", "1.2.0~rc1+9.gabc1234-1"},
	{"v1.2.0-rc2", "1.2.0~rc2-1"},
	{"v1.2.0", "1.2.0-1"},
	{"v1.2.0-dirty", "1.2.0+dirty-1"},
	{"1.2.1", "1.2.1-1"},
	{"v1.2.1-3-gabc1234", "1.2.1+3.gabc1234-1"},
	{"v1.2.1-10-gabc1234", "1.2.1+10.gabc1234-1"},
	{"v1.2.1-10-gabc1234-dirty", "1.2.1+10.gabc1234+dirty-1"},
	{"v1.10.0", "1.10.0-1"},
}

func TestDebianVersions(t *testing.T) {
	last := ""
	for i, v := range debVersions {
		out, err := exec.Command("sh", "deb/version.sh", v[0], "7").CombinedOutput()
		got := strings.TrimSpace(string(out))
		if err != nil || got != v[1] {
			t.Errorf("%s is %s, want %s: %v", v[0], got, v[1], err)
		}
		if _, err := exec.LookPath("dpkg"); err == nil && i > 1 { // the first two have no order
			if err := exec.Command("dpkg", "--compare-versions", got, "gt", last).Run(); err != nil {
				t.Errorf("%s is not after %s", got, last)
			}
		}
		last = got
	}
}
