package access

import (
	"fmt"
	"strings"
	"testing"

	"hailoclip/pipeline"
	"hailoclip/pipeline/fair"
)

func key(name, secret string) Key {
	k := Key{}
	k.SetDefaults()
	k.Name, k.Hash = name, Sum([]byte(secret))
	return k
}

func TestNewKey(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		k := NewKey()
		if err := CheckKey(k); err != nil || seen[k] || !strings.HasPrefix(k, keyPrefix) || len(k) != len(keyPrefix)+43 {
			t.Errorf("%q: %v", k, err)
		}
		seen[k] = true
		var h Hash
		if err := h.UnmarshalText([]byte(Sum([]byte(k)).Text())); err != nil || h != Sum([]byte(k)) {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", maxKey+1), strings.Repeat("ä", 20), strings.Repeat("x", 30) + " x", strings.Repeat("x", 30) + "\n"} {
		if err := CheckKey(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestHash(t *testing.T) {
	want := Sum([]byte("x"))
	digits := strings.TrimPrefix(want.Text(), hashPrefix)
	for _, text := range []string{digits, "sha256:" + digits, "SHA256:" + strings.ToUpper(digits)} {
		var h Hash
		if err := h.UnmarshalText([]byte(text)); err != nil || h != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"", "x", hidden, "hc_" + digits, digits[1:], digits + "00", "sha256:sha256:" + digits, "md5:" + digits, strings.Repeat("z", 64)} {
		var h Hash
		if err := h.UnmarshalText([]byte(text)); err == nil || h != (Hash{}) || len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	text, _ := want.MarshalText()
	if shown := fmt.Sprintf("%s %v %#v %+v %s", want, want, want, key("a", "x"), text); strings.Contains(shown, digits[:8]) || strings.Count(shown, hidden) != 5 {
		t.Error(shown)
	}
}

func TestCheck(t *testing.T) {
	var many []Key
	for i := range maxKeys + 1 {
		many = append(many, key(fmt.Sprint("k", i), fmt.Sprint(i)))
	}
	for _, tt := range []struct {
		keys []Key
		want string
	}{
		{nil, ""},
		{[]Key{key("a", "1"), key("b", "2")}, ""},
		{many[:maxKeys], ""},
		{many, "keys"},
		{[]Key{key("", "1")}, "keys[0].name"},
		{[]Key{key("a b", "1")}, "keys[0].name"},
		{[]Key{key("a", "1"), key("a", "2")}, "keys[1].name"},
		{[]Key{key("a", "1"), key("b", "1")}, "keys[1].hash"},
		{[]Key{{Name: "a"}}, "keys[0].hash"},
		{[]Key{key("a", "")}, "keys[0].hash"},
	} {
		got := ""
		Config{Keys: tt.keys}.Check(func(field, _ string, _ ...any) { got += field })
		if got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}

func TestFind(t *testing.T) {
	k := New(Config{})
	anybody := k.Find(nil)
	if k.Needed() || anybody == nil || !anybody.Manage || k.Find([]byte("x")) != anybody {
		t.Error("nobody needs a key")
	}
	k.Apply(Config{Keys: []Key{key("a", "first"), key("b", "second")}})
	if !k.Needed() || anybody.Revoked().Err() == nil {
		t.Error("anybody may still ask")
	}
	for sent, want := range map[string]string{"first": "a", "second": "b"} {
		if g := k.Find([]byte(sent)); g == nil || g.Name != want {
			t.Errorf("%s: %v", sent, g)
		}
	}
	for _, wrong := range []string{"", "firs", "first ", "First", "firstsecond", strings.Repeat("x", 1<<20), Sum([]byte("first")).Text(), "\x00"} {
		if g := k.Find([]byte(wrong)); g != nil {
			t.Errorf("%.20q is that of %s", wrong, g.Name)
		}
	}
}

func TestApply(t *testing.T) {
	a, b := key("a", "1"), key("b", "2")
	a.MaxConcurrent = 1
	k := New(Config{Keys: []Key{a, b}})
	before := k.Find([]byte("1"))
	gone := k.Find([]byte("2"))
	if !before.Enter() || before.Enter() {
		t.Fatal("one may be inside")
	}
	a.MaxConcurrent, a.Manage = 2, false
	k.Apply(Config{Keys: []Key{a}})
	after := k.Find([]byte("1"))
	if after.Manage || !after.Enter() || after.Enter() {
		t.Error("two may be inside, and one was")
	}
	if before.Revoked().Err() != nil || gone.Revoked().Err() == nil || k.Find([]byte("2")) != nil {
		t.Error("the wrong one is revoked")
	}
	before.Leave()
	if !after.Enter() {
		t.Error("there is room again")
	}
	a.Hash = Sum([]byte("3"))
	if k.Apply(Config{Keys: []Key{a}}); after.Revoked().Err() == nil || k.Find([]byte("1")) != nil {
		t.Error("a key that was changed for another one of its name is still good")
	}
	last := k.Find([]byte("3"))
	if k.Apply(Config{}); last.Revoked().Err() == nil || k.Needed() || !k.Find([]byte("1")).Enter() {
		t.Error("nobody needs a key any more")
	}
}

func TestLane(t *testing.T) {
	slow := key("slow", "1")
	slow.Priority = "bulk"
	k := New(Config{Keys: []Key{slow, key("b", "2")}})
	c := fair.Caller{Address: "192.0.2.1", Connection: 7}
	g := k.Find([]byte("1"))
	one, two := g.Lane(g.Caller(c)), g.Lane(fair.Caller{})
	if one.Policy() != pipeline.Bulk || one != two || one.Caller.Address != "key slow" {
		t.Errorf("%+v %+v", one, two)
	}
	g = k.Find([]byte("2"))
	if l := g.Lane(g.Caller(c)); l.Policy() != pipeline.Queue || l.Caller != (fair.Caller{Address: "key b", Connection: 7}) {
		t.Errorf("%+v", l)
	}
	if got := New(Config{}).Find(nil).Caller(c); got != c {
		t.Error(got)
	}
}
