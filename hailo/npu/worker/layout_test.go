package worker_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/npu/wire"
)

// What src/protocol.h says is what the package npu says: every constant, and the type, size and
// fields of every message. A field is found by its name, in_this_form in C++, so a renamed or
// forgotten one does not compile.
func TestLayout(t *testing.T) {
	cc := func(name string) string {
		if short, ok := map[string]string{"HEF": "hef", "TimeoutMS": "timeout_ms", "DeviceNS": "device_ns",
			"NNCore": "nn_core", "CPU": "cpu", "CRCErrors": "crc_errors"}[name]; ok {
			return short
		}
		var b strings.Builder
		for i, r := range name {
			if unicode.IsUpper(r) && i > 0 {
				b.WriteByte('_')
			}
			b.WriteRune(unicode.ToLower(r))
		}
		return b.String()
	}
	var source, expected strings.Builder
	source.WriteString("#include \"protocol.h\"\n#include <cstdio>\nusing namespace protocol;\nint main() {\n")
	value := func(expression string, number any) {
		fmt.Fprintf(&source, "    std::printf(\"%%s %%llu\\n\", %q, static_cast<unsigned long long>(%s));\n", expression, expression)
		fmt.Fprintf(&expected, "%s %d\n", expression, number)
	}
	value("magic", wire.Magic)
	value("version", wire.Version)
	value("max_packet", wire.MaxPacket)
	value("models", wire.TextModel+1)
	value("native", wire.FormatNative)
	value("uint8", wire.FormatUint8)
	value("uint16", wire.FormatUint16)
	value("float32", wire.FormatFloat32)

	fields := func(name string, typ reflect.Type, header uintptr) {
		value("sizeof("+name+")", header+typ.Size())
		for i := range typ.NumField() {
			f := typ.Field(i)
			value("offsetof("+name+", "+cc(f.Name)+")", header+f.Offset)
			value("sizeof("+name+"::"+cc(f.Name)+")", f.Type.Size())
		}
	}
	fields("Stream", reflect.TypeFor[wire.Stream](), 0)
	for _, m := range []wire.Message{
		&wire.Open{}, &wire.Hello{}, &wire.Load{}, &wire.Loaded{}, &wire.Submit{}, &wire.Done{}, &wire.Stats{},
	} {
		packet, typ := wire.Append(nil, m), reflect.TypeOf(m).Elem()
		value(typ.Name()+"::kind", binary.LittleEndian.Uint32(packet))
		fields(typ.Name(), typ, uintptr(len(packet)-binary.Size(m)))
	}
	source.WriteString("}\n")

	file := filepath.Join(t.TempDir(), "layout.cpp")
	assert.Must(t, os.WriteFile(file, []byte(source.String()), 0o600))
	program := strings.TrimSuffix(file, ".cpp")
	sources(t)
	assert.Must(t, compile(file, "-o", program))
	got := assert.Value(exec.Command(program).Output())
	assert.Diff(t, expected.String(), string(got), "protocol.h differs from Go's")
}
