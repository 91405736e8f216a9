package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hailoclip/api/client"
	"hailoclip/cache/sets"
)

// doorYAML is a set as people write it.
const doorYAML = `labels:
- name: open
  prompts: [an open door]
- name: closed
  prompts: [a closed door]
  threshold: {enter: 0.7, exit: 0.4}
background: {auto: true}
templates: clip7
`

func TestFilesOfPromptSets(t *testing.T) {
	t.Parallel()
	const doorJSON = `{"labels":[{"name":"open","prompts":["an open door"]},{"name":"closed","prompts":["a closed door"],"threshold":{"enter":0.7,"exit":0.4}}],"background":{"auto":true},"templates":"clip7"}`
	want, err := sets.ParseYAML([]byte(doorYAML), setLimits)
	if err != nil {
		t.Fatal(err)
	}
	indented := "  " + strings.ReplaceAll(strings.TrimSpace(doorYAML), "\n", "\n    ")
	for _, c := range []struct {
		file, format, text string
		says               string // "": it is read
		several            bool
	}{
		{"door.yaml", "", doorYAML, "", false},
		{"door.json", "", doorJSON, "", false},
		{"door.JSON", "", doorJSON, "", false},
		{"door", "json", doorJSON, "", false},
		{"door.json", "yaml", doorYAML, "", false},
		{"door", "", doorYAML, "", false},
		{"all.yaml", "", "prompt_sets:\n  door:\n  " + indented + "\nserver:\n  port: 1\n", "", true},
		{"all.json", "", `{"prompt_sets":{"door":` + doorJSON + `},"other":[1]}`, "", true},

		{"door.yaml", "", "labels: [{name: a, prompt: b}]", "door.yaml: line 1: labels[0].prompt is no key", false},
		{"door.json", "", `{"labels":[{"name":"a","prompt":["b"]}]}`, `door.json: unknown field "prompt"`, false},
		{"door.json", "", doorJSON + doorJSON, "more behind the end", false},
		{"door.json", "", `{"labels":[{"name":"a"},{"name":"a"}]}`, "labels[1].name", false},
		{"door.json", "", `{"labels":{}}`, "cannot unmarshal", false},
		{"door.json", "", "", "EOF", false},
		{"door.yaml", "", "", "is empty", false},
		{"door.yaml", "", "a: b\n---\nc: d", "more than one", false},
		{"all.yaml", "", doorYAML, "no prompt_sets", true},
		{"all.yaml", "", "", "no prompt_sets", true},
		{"all.yaml", "", "[1, 2]", "no prompt_sets", true},
		{"all.yaml", "", "prompt_sets: []", "must be a mapping", true},
		{"all.yaml", "", "prompt_sets:\n  door:\n    labels: []\n", "prompt_sets.door: ", true},
		{"all.yaml", "", "prompt_sets:\n  ../door:\n  " + indented, "prompt_sets.../door: that is no name", true},
		{"all.yaml", "", "prompt_sets:\n  door:\n  " + indented + "\n  door:\n  " + indented, "it is there twice", true},
		{"all.yaml", "", "prompt_sets: {", "line 1", true},
		{"all.json", "", doorJSON, "no prompt_sets", true},
		{"all.json", "", `{"prompt_sets":[]}`, "must be an object", true},
		{"all.json", "", `{"prompt_sets":null}`, "must be an object", true},
		{"all.json", "", `{"prompt_sets":{"door":{"labels":[{"name":"a"}],"more":1}}}`, `prompt_sets.door: unknown field "more"`, true},
		{"all.json", "", `{"prompt_sets":{"door":` + doorJSON + `,"door":` + doorJSON + `}}`, "it is there twice", true},
		{"all.json", "", `[]`, "cannot unmarshal", true},
	} {
		name := filepath.Join(t.TempDir(), c.file)
		put(t, filepath.Dir(name), map[string]string{c.file: c.text})
		read := changes{Format: c.format}
		var got sets.Definition
		var err error
		if c.several {
			var all []namedSet
			if all, err = read.readSets(name); err == nil {
				if len(all) != 1 || all[0].name != "door" {
					t.Errorf("%s: %+v", c.text, all)
				}
				got = all[0].definition
			}
		} else {
			got, err = read.readDefinition(name)
		}
		if c.says == "" && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("%s %s:\n%+v, %v, want\n%+v", c.file, c.text, got, err, want)
		}
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || reflect.TypeOf(err) != reflect.TypeFor[usageError]()) {
			t.Errorf("%s %s: error %v, want one with %q", c.file, c.text, err, c.says)
		}
	}
}

// TestNoSetsAtAll: what export writes of a service without prompt sets, import reads.
func TestNoSetsAtAll(t *testing.T) {
	for _, format := range []string{"yaml", "json"} {
		file := filepath.Join(t.TempDir(), "sets."+format)
		if err := (&promptSetsExportCmd{Out: file}).write(map[string]sets.Definition{}); err != nil {
			t.Fatal(err)
		}
		if all, err := (&changes{}).readSets(file); err != nil || len(all) != 0 {
			t.Errorf("%s: %v, %v", format, all, err)
		}
	}
}

// FuzzFilesOfPromptSets: whatever is read can be written, and is read again as the same.
func FuzzFilesOfPromptSets(f *testing.F) {
	f.Add([]byte("prompt_sets:\n  door:\n    labels: [{name: a, prompts: [b]}]\n"), false)
	f.Add([]byte(`{"prompt_sets":{"a":{"labels":[{"name":"a","examples":[{"id":"00112233445566778899aabbccddeeff"}]}]}}}`), true)
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		read := yamlSets
		if isJSON {
			read = jsonSets
		}
		all, err := read(text)
		if err != nil {
			return
		}
		again := map[string]sets.Definition{}
		for _, set := range all {
			ours, err := translated[client.Definition](set.definition)
			if err != nil {
				t.Fatal(err)
			}
			if again[set.name], err = translated[sets.Definition](ours); err != nil {
				t.Fatal(err)
			}
		}
		var asYAML bytes.Buffer
		if err := writeYAML(&asYAML, map[string]any{setsSection: again}); err != nil {
			t.Fatal(err)
		}
		asJSON := must(json.Marshal(map[string]any{setsSection: again}))
		for _, second := range [][]namedSet{must(yamlSets(asYAML.Bytes())), must(jsonSets(asJSON))} {
			if len(second) != len(all) {
				t.Fatalf("%d sets of %d:\n%s", len(second), len(all), &asYAML)
			}
			for _, set := range second {
				if a, b := must(json.Marshal(again[set.name])), must(json.Marshal(set.definition)); !bytes.Equal(a, b) {
					t.Fatalf("%s\nis read as\n%s\nfrom\n%s", a, b, &asYAML)
				}
			}
		}
	})
}

func TestLostExamples(t *testing.T) {
	t.Parallel()
	const one, two = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
	there := client.PromptSet{Definition: client.Definition{
		Labels:     []client.Label{{Name: "open", Examples: []client.Example{{ID: one}, {ID: two}}}, {Name: "closed"}},
		Background: client.Background{Examples: []client.Example{{ID: one}}},
	}}
	background := sets.Background{Examples: []sets.Example{{ID: one}}}
	for i, c := range []struct {
		d    sets.Definition
		want string
	}{
		{sets.Definition{Labels: []sets.Label{{Name: "open", Examples: []sets.Example{{ID: two}, {ID: one}}}}, Background: background}, "[]"},
		{sets.Definition{Labels: []sets.Label{{Name: "open", Examples: []sets.Example{{ID: two}}}}, Background: background}, "[open]"},
		{sets.Definition{Labels: []sets.Label{{Name: "wide open", Examples: []sets.Example{{ID: two}, {ID: one}}}}}, "[open the background]"},
		{sets.Definition{}, "[open the background]"},
	} {
		if got := fmt.Sprint(lostExamples(there, c.d)); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
}

// TestWhoIsAsked has services that do, and do not, hold the prompt sets of a state folder.
func TestWhoIsAsked(t *testing.T) {
	t.Parallel()
	var text atomic.Value
	text.Store(`{"service":"hailo-clip","status":"healthy"}`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text.Load()) }))
	defer s.Close()
	for _, file := range []string{"prompt-sets.db", "prompts.db"} {
		state := t.TempDir()
		p := must((&globals{StateDir: state, ConfigFile: configFile(t, "")}).place())
		p.cfg.Server.Host, p.cfg.Server.Port = "127.0.0.1", s.Listener.Addr().(*net.TCPAddr).Port
		asked := func(url, says string) {
			t.Helper()
			got, err := p.served(t.Context())
			if got != url && says == "" || (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %q, %v, want %q, %q", file, got, err, url, says)
			}
		}
		asked("", "") // there is no file
		put(t, state, map[string]string{file: "x"})
		asked("", "") // nobody has it: the service there has another folder
		held := must(os.Open(filepath.Join(state, file)))
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		asked(s.URL, "")
		text.Store(`{"status":"ok"}`)
		asked("", file+" is held by another hailo-clip")
		text.Store(`{"service":"hailo-clip","status":"healthy"}`)
		p.cfg.Server.Port = 1
		asked("", "give its address with --url")
		held.Close()
		asked("", "")
	}
}

// TestWaitsForEncoding has a service whose device is away for a while, and then for good.
func TestWaitsForEncoding(t *testing.T) {
	t.Parallel()
	for end, code := range map[string]int{"ready": exitOK, "failed": exitOK} { // a former version may answer
		var asked atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			state := "encoding"
			if n := asked.Add(1); n > 3 {
				state = end
			}
			if r.Method == http.MethodGet {
				fmt.Fprintf(w, `{"name":"door","state":%q,"reason":"the device is lost"}`, state)
			} else {
				fmt.Fprint(w, `{"classifications":[{"text":"open","score":0.9}],"matched":false,"reason":"min_margin"}`)
			}
		}))
		defer s.Close()
		r := hailoClip(t, "classify", samples+"cat.jpg", "--prompt-set", "door", "--url", s.URL)
		r.expect(t, code, "no label fits: min_margin open 0.900", "door waits to be encoded: the device is lost")
		if n := strings.Count(r.stderr, "device is lost"); n != 1 {
			t.Errorf("told %d times", n)
		}
		hailoClip(t, "evaluate", "door", labelledSamples(t, "cat"), "--url", s.URL).
			expect(t, exitFailed, map[string]string{"ready": "is not 1 x 1", "failed": "cannot be encoded: the device is lost"}[end])
	}
}

func TestLabelledImages(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put(t, root, map[string]string{"cat/1.jpg": "1", "cat/2.JPEG": "22", "cat/notes.txt": "", "cat/.3.jpg": "", "dog/1.png": "333", "readme.md": "", ".git/1.jpg": "", "empty/x": "", "cat/more/4.jpg": ""})
	files, err := labelled(root)
	if err != nil {
		t.Fatal(err)
	}
	images := must(readLabelled(files))
	var got []string
	for _, i := range images {
		got = append(got, fmt.Sprintf("%s %d", i.Label, len(i.Image)))
	}
	if want := "[cat 1 cat 2 dog 3]"; fmt.Sprint(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := labelled(t.TempDir()); err == nil || !strings.Contains(err.Error(), "has no images") {
		t.Error(err)
	}
	many := make([]labelledFile, 2500)
	for i := range many {
		many[i].path = fmt.Sprint(i)
	}
	if taken := evenly(many, 1000); len(taken) != 1000 || taken[0].path != "0" || taken[999].path != "2497" || taken[500].path != "1250" {
		t.Errorf("%v", taken)
	}
}
