package sets

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"hailoclip/cache/boltfile"
)

// checkSound checks what holds of every definition that was read and validated: it is read again as it was written, and its
// texts keep within the bounds.
func checkSound(t *testing.T, d Definition) {
	t.Helper()
	if again := d.Normalized(); !reflect.DeepEqual(d, again) {
		t.Fatalf("normalised again it is %+v, and was %+v", again, d)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(text)
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	same := func(how string, again Definition) {
		if more, err := json.Marshal(again); err != nil || string(more) != string(text) || ETag(again) != ETag(d) {
			t.Fatalf("%s:\n%s\n%s", how, text, more)
		}
	}
	same("JSON", again)
	inYAML, err := yaml.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if again, err = ParseYAML(inYAML, testLimits); err != nil && !d.HasImages() {
		t.Fatalf("%v in %s", err, inYAML)
	} else if err == nil {
		same("YAML", again)
	}
	texts, size, rows := 0, 0, 0
	for _, e := range d.Entries(nil) {
		rows += max(1, e.Rows())
		for _, text := range slices.Concat(e.Groups...) {
			texts, size = texts+1, size+len(text)
		}
	}
	if texts > MaxTexts || size > MaxTextBytes || rows > 2*MaxRows {
		t.Fatalf("%d texts of %d bytes, %d rows", texts, size, rows)
	}
	if d.HasImages() {
		return
	}
	r := Record{Name: "set", Definition: d}
	items, err := r.items()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := assemble("set", items)
	if err != nil {
		t.Fatal(err)
	}
	same("kept", kept.Definition)
}

func FuzzParseJSON(f *testing.F) {
	for _, text := range []string{
		``, `null`, `{}`, `{"labels": [{"name": "a"}]}`, `{"labels": [null], "templates": "clip7"}`, `{"labels": [{"name": "\ud800"}]}`,
		`{"labels": [{"name": "cat", "prompts": ["a cat"], "pool": "mean", "images": ["aGk="], "negative": false, "threshold": {"enter": 0.7, "exit": 0.4}}],
		"templates": null, "background": {"auto": false, "prompts": [], "images": []}, "fewshot": {"mode": "auto", "alpha": "auto"},
		"activation": "softmax", "temperature": 1.0, "min_cosine": null, "min_margin": null}`,
		`{"labels": [{"name": "a"}, {"name": "b"}], "labels": [{"name": "a"}], "fewshot": {"alpha": 1e-300}, "templates": ["{}{", "{}"]}`,
		`{"LABELS": [{"name": "a", "negation": ["b"], "pool": "max"}], "activation": "pair", "temperature": 5e-1}`,
	} {
		f.Add([]byte(text))
	}
	whole, err := json.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, text []byte) {
		given := string(text)
		d, err := ParseJSON(text)
		checkFaults(t, err)
		if err == nil {
			err = d.Validate(testLimits)
			checkFaults(t, err)
		}
		if string(text) != given {
			t.Fatal("the text was changed")
		}
		if err == nil {
			clear(text) // it may be used again
			checkSound(t, d)
		}
	})
}

// checkFaults checks that an error is of faults that can be shown.
func checkFaults(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	all := Faults(err)
	for _, fault := range all {
		if fault.Problem == "" || len(fault.Error()) > 1000 || strings.Contains(fault.Error(), "json:") {
			t.Fatalf("%.2000q", fault.Error())
		}
	}
	if len(all) == 0 || len(all) > maxFaults {
		t.Fatalf("%d faults: %v", len(all), err)
	}
}

func FuzzParseYAML(f *testing.F) {
	for _, text := range []string{
		"", "{}", "labels:\n  - name: a\n", "labels:\n  - {name: yes, prompts: [no, 1, ~]}\ntemplates: clip7\nfewshot: {alpha: auto}\n",
		"a: &a [*a]\nlabels: *a\n", "labels:\n  - <<: {name: a}\n", "labels: !!seq []\n", "? {}\n: []\n", "labels:\n- name: |\n    a\n    b\n",
		"labels:\n  - name: a\n    examples: [{vector: !!binary AACAPw==}]\n", "\"labels\":\n  - 'name': 0x10\n---\n", "%YAML 1.1\n---\nlabels: []\n",
	} {
		f.Add([]byte(text))
	}
	for _, format := range []string{"!%s a", "labels: *%s", "%s: a", "labels: [{%s: a}]", "labels: [{name: a}, {name: %[1]s}, {name: %[1]s}]"} {
		f.Add(fmt.Appendf(nil, format, strings.Repeat("x", 2000)))
	}
	whole, err := yaml.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseYAML(text, testLimits)
		checkFaults(t, err)
		if err == nil {
			checkSound(t, d)
		}
	})
}

// FuzzStored changes what a set is kept as, with checksums that are right again: a program of another version wrote it.
func FuzzStored(f *testing.F) {
	items, err := (Record{Name: "a", Definition: full()}).items()
	if err != nil {
		f.Fatal(err)
	}
	for key, item := range items {
		f.Add([]byte(key), unseal("a", []byte(key), item))
	}
	f.Add([]byte("d"), []byte(`{"labels": [{}, {}], "count": 1000000000}`))
	f.Add([]byte("d"), []byte(`{"background": {"examples": [{"id": "zz"}, {"id": ""}]}, "count": -1}`))
	f.Add(exampleKey(exampleOf(1, 100).ID), []byte("{\"vector_bytes\": 1000000000}\nabc"))
	f.Fuzz(func(t *testing.T, key, content []byte) {
		changed := map[string][]byte{string(key): seal("a", key, content)}
		for key, item := range items {
			if changed[key] == nil {
				changed[key] = item
			}
		}
		r, err := assemble("a", changed)
		if err == nil && r.Definition.Validate(testLimits) == nil {
			checkSound(t, r.Definition.Normalized())
		}
	})
}

// FuzzFile changes bytes of a file anywhere: it is found damaged, or all of it can be read.
func FuzzFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), FileName)
	s := openStore(f, path)
	mustPut(f, s, recordOf("a", 1, 12))
	mustPut(f, s, recordOf("b", 1, 1))
	closeStore(f, s)
	image := read(f, path)
	size := os.Getpagesize()
	for at := 0; at < len(image); at += size / 2 {
		f.Add(uint32(at), image[at:][:64])
	}
	f.Add(uint32(2*size+8), []byte("\x10\x00\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		changed := slices.Clone(image)
		copy(changed[int(at)%len(changed):], with)
		var lost error
		err := boltfile.Guard(func() error { lost = check(changed); return nil })
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if err == nil && lost == nil {
			if err := os.WriteFile(path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			mustHave(t, s, map[string]Record{"a": recordOf("a", 1, 12), "b": recordOf("b", 1, 1)})
			mustPut(t, s, recordOf("c", 1, 3))
			closeStore(t, s)
		}
	})
}
