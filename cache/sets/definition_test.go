package sets

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var testLimits = Limits{PromptBytes: 2048}

// vectorOf is a vector of unit length.
func vectorOf(seed, dim int) Bytes {
	numbers := make([]float32, dim)
	numbers[seed%dim], numbers[(seed/dim+seed+1)%dim] = 0.6, 0.8
	return FormatVector(numbers)
}

// exampleOf is an example with a thumbnail of size bytes.
func exampleOf(seed, size int) Example {
	thumbnail := append(Bytes{0xff, 0xd8, 0xff}, make([]byte, size-3)...)
	vector := vectorOf(seed, 32)
	return Example{ID: ExampleID(vector), Model: "digest", Vector: vector, Thumbnail: thumbnail}
}

func mustParse(t testing.TB, text string) Definition {
	t.Helper()
	d, err := ParseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fault returns what ParseJSON, and then Validate, says first of a definition; "" if nothing.
func fault(text string) string {
	d, err := ParseJSON([]byte(text))
	if err == nil {
		err = d.Validate(testLimits)
	}
	var f Fault
	if errors.As(err, &f) {
		return f.Error()
	}
	return ""
}

func TestDefaults(t *testing.T) {
	d := mustParse(t, `{"labels": [{"name": " cat "}], "templates": null, "background": null, "fewshot": {"alpha": null}, "temperature": null,
		"min_cosine": null, "min_margin": null, "later": {"field": []}}`)
	want := Definition{
		Labels: []Label{{Name: "cat", Pool: "mean"}}, Background: Background{Prompts: []string{}}, FewShot: FewShot{Mode: "auto"},
		Activation: "softmax", Temperature: 1,
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(d)
	const wrote = `{"labels":[{"name":"cat","pool":"mean"}],"templates":null,"background":{"auto":false,"prompts":[]},` +
		`"fewshot":{"mode":"auto","alpha":"auto"},"activation":"softmax","temperature":1,"min_cosine":null,"min_margin":null}`
	if err != nil || string(text) != wrote {
		t.Errorf("%s, %v", text, err)
	}
	if diff := cmp.Diff(d, mustParse(t, wrote)); diff != "" {
		t.Errorf("read again: %s", diff)
	}
}

// full is a definition in which every field is used.
func full() Definition {
	number := 0.25
	return Definition{
		Labels: []Label{
			{Name: "yes", Prompts: []string{"the door is open", "no"}, Negation: []string{"the door is closed"}, Pool: "max",
				Examples: []Example{exampleOf(1, 100), exampleOf(2, 3)}, Threshold: &Threshold{Enter: 0.7, Exit: 0.4}},
			{Name: "1", Examples: []Example{{ID: ExampleID(vectorOf(3, 4)), Model: "m", Vector: vectorOf(3, 4)}}},
			{Name: "null: [x] # é", Negative: true},
		},
		Templates: &Templates{List: []string{"a photo of {}", "{}"}}, FewShot: FewShot{Mode: "gda", Alpha: 0.5}, Activation: "pair",
		Background:  Background{Auto: true, Prompts: []string{"a wall"}, Examples: []Example{exampleOf(4, 20)}},
		Temperature: 1.5, MinCosine: &number, MinMargin: &number,
	}.Normalized()
}

func TestReadAsWritten(t *testing.T) {
	d := full()
	if err := d.Validate(testLimits); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, mustParse(t, string(text))); diff != "" {
		t.Error(diff)
	}
	if text, err = yaml.Marshal(d); err != nil {
		t.Fatal(err)
	}
	read, err := ParseYAML(text, testLimits)
	if diff := cmp.Diff(d, read); diff != "" || err != nil {
		t.Errorf("%v, %s\n%s", err, diff, text)
	}
	named := d
	named.Templates = &Templates{Name: "clip7"}
	text, _ = yaml.Marshal(named)
	if read, err = ParseYAML(text, testLimits); err != nil || read.Templates.Name != "clip7" {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestFaults(t *testing.T) {
	list := func(n int, format string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(format, "#", fmt.Sprint(i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	example := func(change func(*Example)) string {
		e := exampleOf(1, 100)
		change(&e)
		b, _ := json.Marshal(e)
		return `{"labels": [{"name": "a", "examples": [` + string(b) + `]}]}`
	}
	for _, tt := range []struct{ text, want string }{
		{``, "must be a JSON object"},
		{`null`, "must be a JSON object"},
		{`[]`, "must be a JSON object"},
		{`{"labels": [}`, "is not valid JSON: invalid character '}' looking for beginning of value, at byte 13"},
		{"{\"labels\": [{\"name\": \"\xff\"}]}", "is not valid UTF-8"},
		{`{"labels": ` + list(300_000, "{}") + "}", "has more than 250000 values"},
		{`{"labels": {}}`, "labels must be a list, not object, at byte 12"},
		{`{"labels": [{"name": "a", "prompts": "cat"}]}`, "labels.prompts must be a list, not string, at byte 42"},
		{`{"labels": [{"name": 5}]}`, "labels.name must be a text, not number, at byte 22"},
		{`{"labels": [{"name": "a", "examples": [{"vector": "?"}]}]}`, "has an example whose vector or thumbnail is not base64"},
		{`{"background": {"auto": 1}}`, "background.auto must be true or false, not number, at byte 25"},
		{`{}`, "labels must have a label that is not negative"},
		{`{"labels": [{"name": "a", "negative": true}]}`, "labels must have a label that is not negative"},
		{`{"labels": ` + list(1001, `{"name": "#"}`) + `}`, "labels has more than 1000 labels"},
		{`{"labels": [null]}`, "labels[0].name is empty"},
		{`{"labels": [{"name": "a"}, {"name": " a"}]}`, `labels[1].name is that of labels[0] already: "a"`},
		{`{"labels": [{"name": "a\nb"}]}`, "labels[0].name must not have control characters"},
		{`{"labels": [{"name": "` + strings.Repeat("x", 2049) + `"}]}`, "labels[0].name is longer than 2048 bytes"},
		{`{"labels": [{"name": "a", "prompts": ["b", " "]}]}`, "labels[0].prompts[1] is empty"},
		{`{"labels": [{"name": "a", "prompts": ["` + strings.Repeat("x", 2049) + `"]}]}`, "labels[0].prompts[0] is longer than 2048 bytes"},
		{`{"labels": [{"name": "a", "prompts": ` + list(101, `"#"`) + `}]}`, "labels[0].prompts has more than 100 prompts"},
		{`{"labels": [{"name": "a", "images": ` + list(17, `"#"`) + `}]}`, "labels[0].images has more than 16 images and examples"},
		{`{"labels": [{"name": "a", "pool": "median"}]}`, "labels[0].pool must be one of mean, max"},
		{`{"labels": [{"name": "a", "negation": ["b"]}]}`, "labels[0].negation is for activation pair only"},
		{`{"labels": [{"name": "a"}, {"name": "b", "negative": true, "negation": ["c"]}], "activation": "pair"}`,
			"labels[1].negation is for labels that are not negative"},
		{`{"labels": [{"name": "a"}], "activation": "pair"}`,
			"labels[0].negation is missing: activation pair needs one for each label, or a background"},
		{`{"labels": [{"name": "a"}], "activation": "relu"}`, "activation must be one of softmax, sigmoid, pair, none"},
		{`{"labels": [{"name": "a"}], "fewshot": {"mode": "best"}}`, "fewshot.mode must be one of auto, off, prototype, gda"},
		{`{"labels": [{"name": "a"}], "fewshot": {"alpha": "much"}}`, `fewshot.alpha must be "auto" or a number above 0 and at most 1000`},
		{`{"labels": [{"name": "a"}], "fewshot": {"alpha": 0}}`, `fewshot.alpha must be "auto" or a number above 0 and at most 1000`},
		{`{"labels": [{"name": "a"}], "temperature": -1}`, "temperature must be a number from 0.001 to 1000"},
		{`{"labels": [{"name": "a"}], "min_cosine": 1.5}`, "min_cosine must be a number from -1 to 1"},
		{`{"labels": [{"name": "a"}], "min_margin": -0.5}`, "min_margin must be a number from 0 to 1"},
		{`{"labels": [{"name": "a", "threshold": {"enter": 0.4, "exit": 0.7}}]}`, "labels[0].threshold.exit must not be above enter"},
		{`{"labels": [{"name": "a"}], "templates": "clip8"}`, "templates must be none, clip7, imagenet80, or a list of texts with {}"},
		{`{"labels": [{"name": "a"}], "templates": 5}`, "templates must be none, clip7, imagenet80, or a list of texts with {}"},
		{`{"labels": [{"name": "a"}], "templates": []}`, "templates must be none, clip7, imagenet80, or a list of texts with {}"},
		{`{"labels": [{"name": "a"}], "templates": ["{}", "a photo"]}`, "templates[1] must have {} once, where the prompt goes"},
		{`{"labels": [{"name": "a"}], "templates": ` + list(101, `"# {}"`) + `}`, "templates has more than 100 templates"},
		{`{"labels": ` + list(1000, `{"name": "#", "prompts": ["a", "b"]}`) + `, "templates": ` + list(51, `"# {}"`) + `}`,
			"labels makes 102000 texts of prompts and templates, more than 100000"},
		{`{"labels": ` + list(1000, `{"name": "#`+strings.Repeat("x", 2000)+`"}`) + `, "templates": ` + list(9, `"# {}"`) + `}`,
			"labels makes 18044010 bytes of text of prompts and templates, more than 16777216"},
		{`{"labels": ` + list(1000, `{"name": "#", "pool": "max", "prompts": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]}`) + `}`,
			"labels needs 11000 vectors, more than 10000: one for each label, with pool max for each prompt"},
		{`{"labels": [{"name": "a", "examples": [{"id": "5"}]}]}`, "labels[0].examples[0].id must have 32 hexadecimal digits"},
		{example(func(*Example) {}), ""},
		{example(func(e *Example) { *e = Example{ID: e.ID} }), ""},
		{example(func(e *Example) { *e = Example{ID: e.ID, FromThumbnail: true} }), ""},
		{example(func(e *Example) { e.Vector = nil }), "labels[0].examples[0].vector is missing"},
		{example(func(e *Example) { e.Vector = make(Bytes, 12) }),
			"labels[0].examples[0].vector must be base64 of float32 numbers, little-endian, of unit length"},
		{example(func(e *Example) { e.Vector = e.Vector[1:] }),
			"labels[0].examples[0].vector must be base64 of float32 numbers, little-endian, of unit length"},
		{example(func(e *Example) { e.Vector = vectorOf(2, 32) }), "labels[0].examples[0].id is not that of its vector"},
		{example(func(e *Example) { e.Vector, e.FromThumbnail = vectorOf(2, 32), true }), ""},
		{example(func(e *Example) { e.Model = "" }),
			"labels[0].examples[0].model is missing: the digest of the image encoder that the vector is from"},
		{example(func(e *Example) { e.Thumbnail[0] = 'x' }), "labels[0].examples[0].thumbnail must be a JPEG"},
		{example(func(e *Example) { e.Thumbnail = append(e.Thumbnail, make([]byte, 65536)...) }),
			"labels[0].examples[0].thumbnail is longer than 65536 bytes"},
	} {
		if got := fault(tt.text); got != tt.want {
			t.Errorf("%.200s:\n%q, want\n%q", tt.text, got, tt.want)
		}
	}
	d := mustParse(t, `{"labels": [{"name": "a", "images": ["x"]}], "temperature": 1e9, "activation": "x"}`)
	err := d.Validate(Limits{PromptBytes: 2048, NoImages: true})
	if fmt.Sprint(err) != "activation must be one of softmax, sigmoid, pair, none\ntemperature must be a number from 0.001 to 1000\n"+
		"labels[0].images must not be here: add them by the API, and export the set to get their examples" {
		t.Error(err)
	}
}

func TestFaultsOfYAML(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "is empty"},
		{"labels: [", "is not valid YAML: line 1: did not find expected node content"},
		{"labels: []\n---\nlabels: []\n", "has more than one YAML document"},
		{"[]", "line 1: must be an object"},
		{"labels:\n  - name: a\n    prompt: b\n", "line 3: labels[0].prompt is no key of prompt sets"},
		{"labels:\n  - name: a\n    name: b\n", "line 3: labels[0].name stands already in line 2"},
		{"labels:\n  - name: [a]\n", "line 2: labels[0].name must be a text"},
		{"labels:\n  - name: a\n    prompts: b\n", "line 3: labels[0].prompts must be a list"},
		{"labels:\n  - name: &a a\n  - name: *a\n", "line 3: labels[1].name must not be an alias, such as *a"},
		{"labels:\n  - name: !!str a\n", "line 2: labels[0].name must not have a tag, such as !!str"},
		{"labels:\n  - name: a\n    negative: perhaps\n", "line 3: labels[0].negative must be true or false"},
		{"labels:\n  - name: a\ntemperature: hot\n", "line 3: temperature must be a number"},
		{"labels:\n  - name: a\ntemperature: 1e9\n", "line 3: temperature must be a number from 0.001 to 1000"},
		{"labels:\n  - name: a\nfewshot:\n  alpha: [1]\n", "line 4: fewshot.alpha must be \"auto\" or a number above 0 and at most 1000"},
		{"labels:\n  - name: a\n    examples:\n      - vector: '?'\n", "line 4: labels[0].examples[0].vector must be base64"},
		{"labels:\n  - name: a\n  - name: b\n  - prompts: [c]\n", "line 4: labels[2].name is empty"},
		{"labels:\n  - name: a\n    prompts: [b,\n      ~]\n", "line 4: labels[0].prompts[1] is empty"},
		{"labels:\n  - name: a\ntemplates: [a]\n", "line 3: templates[0] must have {} once, where the prompt goes"},
		{"? [a]\n: b\nlabels:\n  - name: a\n", "line 1: has a key that is no text"},
	} {
		_, err := ParseYAML([]byte(tt.text), testLimits)
		if first, _, _ := strings.Cut(fmt.Sprint(err), "\n"); first != tt.want {
			t.Errorf("%q:\n%q, want\n%q", tt.text, first, tt.want)
		}
	}
	_, err := ParseYAML([]byte("labels:\n  - name: a\n    a: 1\n    b: 2\n"), testLimits)
	if got := fmt.Sprint(err); got != "line 3: labels[0].a is no key of prompt sets\nline 4: labels[0].b is no key of prompt sets" {
		t.Error(got)
	}
}

func TestBuiltInTemplates(t *testing.T) {
	// The digest is that of the list in OpenAI's notebook, a line each.
	const digest = "717aaf1055595d318aa456669c0de6675d883ccebfa70ca12ff890b7aab710cb"
	all := (&Templates{Name: "imagenet80"}).Texts()
	if sum := sha256.Sum256([]byte(strings.Join(all, "\n") + "\n")); len(all) != 80 || hex.EncodeToString(sum[:]) != digest {
		t.Errorf("%d templates, digest %x", len(all), sum)
	}
	for _, template := range (&Templates{Name: "clip7"}).Texts() {
		if !slices.Contains(all, template) {
			t.Errorf("%q is not one of the 80", template)
		}
	}
}

func TestEntries(t *testing.T) {
	e := exampleOf(1, 9)
	d := Definition{
		Labels: []Label{
			{Name: "dark", Negative: true, Prompts: []string{"night"}},
			{Name: "cat"},
			{Name: "dog", Prompts: []string{"a dog", "a puppy"}, Pool: "max", Negation: []string{"no dog"}},
			{Name: "own", Examples: []Example{e}},
		},
		Background: Background{Auto: true, Prompts: []string{"a wall"}, Examples: []Example{e}}, Activation: "pair",
	}.Normalized()
	names := func(entries []Entry) (all []string) {
		for _, e := range entries {
			texts := 0
			for _, group := range e.Groups {
				texts += len(group)
			}
			all = append(all, fmt.Sprintf("%s role %d: %d texts, %d rows, %d examples", e.Name, e.Role, texts, e.Rows(), len(e.Examples)))
		}
		return all
	}
	entries := d.Entries([]string{"a sky"})
	want := []string{
		"cat role 0: 7 texts, 1 rows, 0 examples", "dog role 0: 2 texts, 2 rows, 0 examples", "own role 0: 0 texts, 0 rows, 1 examples",
		"dark role 1: 1 texts, 1 rows, 0 examples", "a wall role 1: 1 texts, 1 rows, 0 examples", "a sky role 1: 7 texts, 1 rows, 0 examples",
		"background role 1: 0 texts, 0 rows, 1 examples", "dog role 2: 1 texts, 1 rows, 0 examples",
	}
	if diff := cmp.Diff(want, names(entries)); diff != "" || entries[7].Against != 1 {
		t.Error(entries[7].Against, diff)
	}
	if got := entries[0].Groups[0][1]; got != "a bad photo of the cat." {
		t.Error(got)
	}
	d.Templates, d.FewShot.Mode = &Templates{List: []string{"1 {}", "2 {}"}}, "off"
	entries = d.Entries([]string{"a sky"})
	want = []string{
		"cat role 0: 2 texts, 1 rows, 0 examples", "dog role 0: 4 texts, 2 rows, 0 examples", "own role 0: 2 texts, 1 rows, 1 examples",
		"dark role 1: 2 texts, 1 rows, 0 examples", "a wall role 1: 2 texts, 1 rows, 0 examples", "a sky role 1: 2 texts, 1 rows, 0 examples",
		"dog role 2: 2 texts, 1 rows, 0 examples",
	}
	if diff := cmp.Diff(want, names(entries)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]string{{"1 a dog", "2 a dog"}, {"1 a puppy", "2 a puppy"}}, entries[1].Groups); diff != "" {
		t.Error(diff)
	}
}

func TestKeysDiffer(t *testing.T) {
	seen := map[Key]int{}
	for i, e := range []Entry{
		{Groups: [][]string{{"a"}, {"b"}}},
		{Groups: [][]string{{"a"}, {"b"}}, Max: true},
		{Groups: [][]string{{"a", "b"}, {"c", "d"}}, Max: true},
		{Groups: [][]string{{"a"}, {"b"}, {"c"}, {"d"}}, Max: true},
		{Groups: [][]string{{"ab"}}},
		{Groups: [][]string{{"2"}, {"a"}, {"b"}}},
		{Groups: [][]string{{"b"}, {"a"}}},
	} {
		for j, encoder := range []string{"e", "f"} {
			k := e.Key(encoder)
			if other, twice := seen[k]; twice {
				t.Errorf("%d has the key of %d", 2*i+j, other)
			}
			seen[k] = 2*i + j
		}
	}
	e := Entry{Name: "x", Groups: [][]string{{"a"}}}
	if e.Key("e") != (Entry{Name: "y", Groups: [][]string{{"a"}}, Role: Negative}).Key("e") {
		t.Error("the key depends on more than texts")
	}
	if (Entry{Groups: [][]string{{"a", "b"}}}).Key("e") != (Entry{Groups: [][]string{{"a", "b"}}, Max: true}).Key("e") {
		t.Error("the key of one row depends on pool")
	}
}

// Every field of a definition counts in its ETag, but images and how examples were sent do not.
func TestETag(t *testing.T) {
	d := full()
	tag := ETag(d, "model")
	same := full()
	same.Labels[0].Images = []string{"x"}
	for i := range same.Labels {
		for j := range same.Labels[i].Examples {
			same.Labels[i].Examples[j] = Example{ID: same.Labels[i].Examples[j].ID}
		}
	}
	if len(tag) != 64 || ETag(same, "model") != tag || ETag(d, "other") == tag || ETag(d, "mod", "el") == tag {
		t.Errorf("%s, %s", tag, ETag(same, "model"))
	}
	if ETag(mustParse(t, `{"labels": [{"name": "a", "pool": "mean"}], "fewshot": {}}`)) != ETag(mustParse(t, `{"labels": [{"name": " a"}]}`)) {
		t.Error("defaults change it")
	}
	other := full()
	other.Labels[0].Examples[0].FromThumbnail = true
	again := full()
	again.Labels[0].Examples[0] = other.Labels[0].Examples[0]
	again.Labels[0].Examples[0].Vector = vectorOf(9, 32)
	if ETag(other, "model") == tag || ETag(again, "model") == ETag(other, "model") {
		t.Error("vectors of thumbnails do not change it")
	}
	var change func(v reflect.Value, field string)
	change = func(v reflect.Value, field string) {
		switch v.Kind() {
		case reflect.Struct:
			for f, value := range v.Fields() {
				change(value, field+"."+f.Name)
			}
			return
		case reflect.Pointer:
			change(v.Elem(), field)
			return
		case reflect.Slice:
			if strings.HasSuffix(field, "Images") || v.Type().Elem().Kind() == reflect.Uint8 {
				return
			}
			change(v.Index(0), field)
			return
		}
		before := reflect.ValueOf(v.Interface())
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "!")
		case reflect.Float64:
			v.SetFloat(v.Float() + 0.125)
		case reflect.Bool:
			v.SetBool(!v.Bool())
		}
		if same := ETag(d, "model") == tag; same != strings.HasSuffix(field, "Examples.Model") {
			t.Errorf("%s: unchanged is %v", field, same)
		}
		v.Set(before)
	}
	d.Templates.Name = ""
	change(reflect.ValueOf(&d).Elem(), "")
	if ETag(d, "model") != tag {
		t.Error("the test has changed the definition")
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "Door-2_x.y": true, strings.Repeat("a", 64): true,
		"": false, "-a": false, ".a": false, "a b": false, "a/b": false, "é": false, strings.Repeat("a", 65): false, "a\n": false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q", name)
		}
	}
}

func TestNumbersThatAreNone(t *testing.T) {
	d := Definition{Labels: []Label{{Name: "a", Threshold: &Threshold{Enter: math.NaN()}}}, Temperature: math.Inf(1)}.Normalized()
	if err := d.Validate(testLimits); strings.Count(fmt.Sprint(err), "must be a number") != 2 {
		t.Error(err)
	}
}

func TestBytesAsBase64(t *testing.T) {
	text, err := yaml.Marshal(exampleOf(1, 5))
	if want := "thumbnail: " + base64.StdEncoding.EncodeToString(exampleOf(1, 5).Thumbnail); err != nil || !strings.Contains(string(text), want) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestScenes(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Scenes {
		first, _, _ := strings.Cut(s, " ")
		if s != strings.ToLower(s) || s != strings.TrimSpace(s) || strings.ContainsAny(s, "{}.,") || first == "a" || first == "an" || first == "the" {
			t.Errorf("%q is not a noun without an article that fits into a template", s)
		}
		if seen[s] {
			t.Errorf("%q is there twice", s)
		}
		seen[s] = true
	}
	if n := len(Scenes); n < 40 || n > 60 {
		t.Errorf("%d scenes, want about 50", n)
	}
}
