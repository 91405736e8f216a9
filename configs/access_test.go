package configs

import (
	"fmt"
	"strings"
	"testing"

	"hailoclip/api/access"
)

func TestKeys(t *testing.T) {
	const secret = "hc_0123456789012345678901234567890123456789"
	hash := access.Sum([]byte(secret))
	c := mustLoad(t, "access:\n  keys:\n    - {name: ann, hash: '"+hash.Text()+"'}\n    - name: bob\n      hash: "+
		access.Sum([]byte("x")).Text()[len("sha256:"):]+"\n      max_concurrent: 3\n      priority: bulk\n      manage: false\n", "HAILO_CLIP_KEY="+secret)
	want := []access.Key{
		{Name: "ann", Hash: hash, Priority: "normal", Manage: true},
		{Name: "bob", Hash: access.Sum([]byte("x")), MaxConcurrent: 3, Priority: "bulk"},
	}
	if got := c.Access.Keys; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v", got)
	}
	shown, err := c.YAML()
	if err != nil || strings.Contains(string(shown), hash.Text()[8:20]) || strings.Count(string(shown), "***") < 2 {
		t.Errorf("%s%v", shown, err)
	}
	digits := strings.Repeat("0a", 32)
	for _, tt := range []struct{ text, want string }{
		{"keys: " + secret, "line 2: access.keys: can be given in a file only"},
		{"keys: [" + secret + "]", "line 2: access.keys[0]: found a text where a section belongs"},
		{"keys: [{name: a, hash: " + secret + "}]", `line 2: access.keys[0].hash: is out of bounds: "sha256:" and 64 hexadecimal digits`},
		{"keys: [{name: a, hash: '***'}]", "hash: is ***, which stands for what is not shown"},
		{"keys: [{name: a}]", `line 2: access.keys[0].hash: is missing: "hailo-clip keys new NAME" makes a key and its hash`},
		{"keys: [{name: a/b, hash: " + digits + "}]", `access.keys[0].name: "a/b" is out of bounds`},
		{"keys: [{name: a, hash: " + digits + ", max_concurrent: -1}]", "access.keys[0].max_concurrent: -1 is out of bounds: 0 to 100000"},
		{"keys: [{name: a, hash: " + digits + ", priority: high}]", `access.keys[0].priority: "high" is out of bounds: normal, bulk`},
		{"keys: [{name: a, hash: " + digits + ", key: " + secret + "}]", `unknown key "keys[0].key"`},
		{"keys: [{name: a, hash: " + digits + "}, {name: b, hash: " + digits + "}]", "access.keys[1].hash: stands twice"},
	} {
		_, err := Read(write(t, "access:\n  "+tt.text+"\n"), nil, nil)
		if got := fmt.Sprint(err); !strings.Contains(got, tt.want) || strings.Contains(got, secret) || strings.Contains(got, digits) {
			t.Errorf("%s:\n%s", tt.text, got)
		}
	}
	if _, err := Read(write(t, ""), []string{"HAILO_CLIP_ACCESS_KEYS=" + secret}, nil); err == nil || strings.Contains(err.Error(), secret) {
		t.Error(err)
	}
}
