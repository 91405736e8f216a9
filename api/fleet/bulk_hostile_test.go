package fleet

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"hailoclip/api/bulk"
)

func TestParseResult(t *testing.T) {
	key := bulk.Key([]byte("x"), testDigest)
	good := vectorOf([]byte("x"))
	for _, c := range []struct {
		name        string
		m           *nats.Msg
		wrong, says string
	}{
		{"good", newResult("j", "0", key, testDigest, good, "", ""), "", ""},
		{"bad image", newResult("j", "0", key, testDigest, nil, "invalid_image", "not\xffan image"), "", "not?an image"},
		{"no text", newResult("j", "0", key, testDigest, nil, "invalid_image", ""), "", "invalid_image"},
		{"long text", newResult("j", "0", key, testDigest, nil, "invalid_image", strings.Repeat("ä", 4000)), "", strings.Repeat("ä", 512)},
		{"no key", newResult("j", "0", "", testDigest, good, "", ""), "without a key", ""},
		{"key of another", newResult("j", "0", bulk.Key([]byte("x"), "other"), testDigest, good, "", ""), "another encoder", ""},
		{"other encoder", newResult("j", "0", key, "other", good, "", ""), "another encoder", ""},
		{"empty", newResult("j", "0", key, testDigest, nil, "", ""), "0 bytes", ""},
		{"zeros", newResult("j", "0", key, testDigest, make([]float32, 16), "", ""), "squared length 0", ""},
		{"large", newResult("j", "0", key, testDigest, make([]float32, 4097), "", ""), "16388 bytes", ""},
	} {
		r, _, err := parseResult(c.m.Header, c.m.Data, testDigest, testDigest)
		switch {
		case c.wrong != "":
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: %v", c.name, err)
			}
		case err != nil || r.Key != key || r.Error != c.says || c.says == "" && !slices.Equal(r.Vector, good):
			t.Errorf("%s: %+v, %v", c.name, r, err)
		}
	}
}

func FuzzParseResult(f *testing.F) {
	key := bulk.Key([]byte("x"), testDigest)
	f.Add(key, testDigest, "", newResult("j", "0", key, testDigest, vectorOf([]byte("x")), "", "").Data)
	f.Add(key, testDigest, "invalid_image", []byte("text"))
	f.Fuzz(func(t *testing.T, key, digest, code string, data []byte) {
		h := nats.Header{headerKey: {key}, headerModel: {digest}, headerError: {code}}
		r, _, err := parseResult(h, data, testDigest, testDigest)
		if err == nil && (len(r.Vector) == 0) == (r.Error == "") {
			t.Errorf("%+v", r)
		}
	})
}

func TestParseBulk(t *testing.T) {
	for subject, want := range map[string]string{
		bulkSubject + "01234567.j.5": "j 5", bulkSubject + "01234567.j": "", bulkSubject + "01234567.j.5.6": "", "clip.v1.x.0.j.5": "",
		bulkSubject + "0..5": "", bulkSubject + "0.j." + strings.Repeat("5", 65): "",
	} {
		job, shard, err := parseBulk(subject)
		if got := strings.TrimSpace(job + " " + shard); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", subject, got, err)
		}
	}
}

func TestChoose(t *testing.T) {
	a, b, old := Encoders{"a", "1", 4, true}, Encoders{"b", "2", 4, true}, Encoders{"a", "3", 4, false}
	for _, c := range []struct {
		list  []Encoders
		model string
		want  Encoders
		says  string
	}{
		{[]Encoders{a}, "", a, ""},
		{[]Encoders{old, a, b}, "a", a, ""},
		{[]Encoders{old}, "", old, ""},
		{[]Encoders{a, b}, "", Encoders{}, "say which: a, b"},
		{[]Encoders{a, {"a", "4", 4, true}}, "a", Encoders{}, "must not mix"},
		{[]Encoders{a, {"a", "1/pad-exact-go", 4, true}}, "", Encoders{}, `"1/pad-exact-go"`},
		{[]Encoders{a, b}, "c", Encoders{}, "but with a, b"},
		{nil, "", Encoders{}, "fleet.bulk"},
	} {
		got, err := choose(c.list, c.model)
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, %q: %v, %v", c.list, c.model, got, err)
		}
	}
}
