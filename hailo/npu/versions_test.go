package npu

import (
	"strings"
	"testing"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

func helloOf(library, chip, architecture string, status wire.Code) *wire.Hello {
	h := &wire.Hello{Status: status}
	wire.SetText(h.Runtime[:], library)
	wire.SetText(h.Firmware[:], chip)
	wire.SetText(h.Architecture[:], architecture)
	wire.SetText(h.Device[:], "10.0.0.2")
	return h
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		library, driver, chip string
		equal                 bool
	}{
		{"5.2.0", "5.2.0", "5.2.0", true},
		{"5.2.0", "5.2.0-1rpi", "5.2.0", true},
		{"5.2.0", "", "", true},
		{"5.2.0", "5.2.0", "0.0.0", true}, // as of a structure that nobody filled in
		{"simulated", "5.2.0", "", true},
		{"", "5.1.1", "5.2.0", true},
		{"5.2.0", "5.1.1", "", false},
		{"5.2.0", "", "5.1.1", false},
		{"5.2.0", "5.2.0", "5.2.1", false},
		{"5.2.0", "5.2.0", "5.2.00", false},
		{"5.2.0", "5.2.0", "5.20.0", false},
	} {
		why := mismatch(helloOf(tt.library, tt.chip, chipArchitecture, wire.Success), tt.driver)
		assert.True(t, (why == "") == tt.equal, "%+v: %q", tt, why)
		for _, version := range []string{tt.library, tt.driver, tt.chip} {
			assert.True(t, tt.equal || strings.Contains(why, version), "%+v: %q does not name %s", tt, why, version)
		}
	}
}

func TestHelloCheck(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hello *wire.Hello
		want  []string // in the error; none: there is no error
	}{
		{"good", helloOf("5.2.0", "5.2.0", chipArchitecture, wire.Success), nil},
		{"another chip", helloOf("5.2.0", "5.2.0", "architecture 3", wire.Success), []string{"architecture 3", "needs a Hailo-10H"}},
		{"old software", helloOf("5.2.0", "5.1.1", chipArchitecture, wire.Success), []string{"library 5.2.0", "chip 5.1.1", "install all of one version"}},
		{"refused, and why", helloOf("5.2.0", "5.1.1", "", wire.CodeDriverVersion), []string{"INVALID_DRIVER_VERSION (76)", "library 5.2.0", "chip 5.1.1"}},
		{"refused", helloOf("5.2.0", "", "", wire.CodeDeviceInUse), []string{"DEVICE_IN_USE (73)"}},
	} {
		err := checkHello(tt.hello, "")
		assert.True(t, (err == nil) == (tt.want == nil), "%s: %v", tt.name, err)
		for _, want := range tt.want {
			assert.Says(t, err, want, "%s", tt.name)
		}
	}
	assert.NoError(t, checkHello(&wire.Hello{Simulated: 1}, ""))
}
