package model

import (
	"os"
	"slices"
	"strings"
	"testing"

	"hailoclip/hailo/internal/assert"
)

const someSHA = "31d28cb07209533d10fc4fef73ac324ce17de6741a2372e7e1531a4ac8fdaeb2"

// fullManifest is a manifest with every kind of file.
const fullManifest = `{
 "name": "full", "embedding_dimension": 4, "image_size": 32, "context_length": 8, "logit_scale": 50,
 "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
 "tokens": {"start": "<|startoftext|>", "end": "<|endoftext|>", "pad_id": 3},
 "cpu": {"image": "v.onnx", "text": "t.onnx"},
 "npu": {"image": "i.hef", "text": "t.hef", "token_embedding": "e.npy", "text_projection": "p.npy", "zoo": "v5.2.0"},
 "files": {
  "tokenizer.json": {"url": "https://host/tokenizer.json", "vendor": "json/clip_tokenizer.json"},
  "v.onnx": {"url": "https://host/onnx/v.onnx"},
  "t.onnx": {"url": "https://host/onnx/t.onnx"},
  "i.hef": {"url": "https://host/{zoo}/i.hef", "vendor": "models/hailo10h/i.hef", "bytes": 9, "sha256": "` + someSHA + `"},
  "t.hef": {"url": "https://host/{zoo}/t.hef", "vendor": "models/hailo10h/t.hef"},
  "e.npy": {"url": "https://host/e.npy", "vendor": "npy/e.npy"},
  "p.npy": {"vendor": "npy/p.npy"}
 }}`

func parseManifest(t testing.TB, text string, edits ...string) Manifest {
	t.Helper()
	m := assert.Value(ParseManifest([]byte(strings.NewReplacer(edits...).Replace(text))))
	return m
}

func TestParseManifest(t *testing.T) {
	m := parseManifest(t, fullManifest, `"logit_scale": 50,`, ``)
	assert.Equal(t, m.Tokenizer, "tokenizer.json")
	assert.Equal(t, m.LogitScale, DefaultLogitScale)
	for part, want := range map[Part][]string{
		AllParts: {"e.npy", "i.hef", "p.npy", "t.hef", "t.onnx", "tokenizer.json", "v.onnx"},
		CPUPart:  {"t.onnx", "tokenizer.json", "v.onnx"},
		NPUPart:  {"e.npy", "i.hef", "p.npy", "t.hef", "tokenizer.json"},
	} {
		assert.Diff(t, want, m.PartFiles(part), "part %q", part)
	}
	m = parseManifest(t, fullManifest, `"text": "t.hef", "token_embedding": "e.npy", "text_projection": "p.npy",`, ``)
	assert.Diff(t, []string{"i.hef", "t.onnx", "tokenizer.json"}, m.PartFiles(NPUPart), "NPU without text")
}

func TestParseManifestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		says  string
		edits []string
	}{
		"unknown field": {"unknown field", []string{`"name"`, `"nmae": "x", "name"`}},
		"something after": {"follows", []string{`"npy/p.npy"}
 }}`, `"npy/p.npy"}}} {}`}},
		"no JSON": {"", []string{`{
 "name"`, `name`}},
		"name with a path":    {"name", []string{`"name": "full"`, `"name": "../full"`}},
		"no name":             {"name", []string{`"name": "full",`, ``}},
		"dimension":           {"embedding_dimension is 0", []string{`"embedding_dimension": 4`, `"embedding_dimension": 0`}},
		"huge image":          {"image_size is 100000", []string{`"image_size": 32`, `"image_size": 100000`}},
		"context":             {"context_length is 1", []string{`"context_length": 8`, `"context_length": 1`}},
		"logit scale":         {"logit_scale is -1", []string{`"logit_scale": 50`, `"logit_scale": -1`}},
		"two means":           {"three numbers", []string{`"mean": [0.5, 0.5, 0.5]`, `"mean": [0.5, 0.5]`}},
		"four means":          {"three numbers", []string{`"mean": [0.5, 0.5, 0.5]`, `"mean": [0.5, 0.5, 0.5, 1]`}},
		"std of zero":         {"std[1] is 0", []string{`[0.25, 0.25, 0.25]`, `[0.25, 0, 0.25]`}},
		"tokens":              {"tokens.start", []string{`"<|startoftext|>"`, `"start"`}},
		"padding":             {"tokens.pad_id is -1", []string{`"pad_id": 3`, `"pad_id": -1`}},
		"no encoders":         {"neither cpu nor npu", []string{`"cpu": {"image": "v.onnx", "text": "t.onnx"},`, ``, `"npu": {"image": "i.hef", "text": "t.hef", "token_embedding": "e.npy", "text_projection": "p.npy", "zoo": "v5.2.0"},`, ``, `{zoo}`, ``}},
		"no text encoder":     {"no text encoder", []string{`"cpu": {"image": "v.onnx", "text": "t.onnx"},`, ``, `"text": "t.hef", "token_embedding": "e.npy", "text_projection": "p.npy",`, ``}},
		"unlisted file":       {"cpu.image", []string{`"image": "v.onnx"`, `"image": "w.onnx"`}},
		"wrong kind":          {"npu.image", []string{`"image": "i.hef"`, `"image": "v.onnx"`}},
		"projection missing":  {"npu.text_projection", []string{`"text_projection": "p.npy",`, ``}},
		"file in a folder":    {"not a plain file name", []string{`"e.npy": {`, `"x/e.npy": {`, `"token_embedding": "e.npy"`, `"token_embedding": "x/e.npy"`}},
		"file above":          {"not a plain file name", []string{`"e.npy": {`, `"..": {`}},
		"our own file":        {"not a plain file name", []string{`"e.npy": {`, `"digests.json": {}, "e.npy": {`}},
		"http":                {"https", []string{`https://host/e.npy`, `http://host/e.npy`}},
		"file URL":            {"https", []string{`https://host/e.npy`, `file:///etc/passwd`}},
		"user in URL":         {"https", []string{`https://host/e.npy`, `https://a:b@host/e.npy`}},
		"zoo not named":       {"{zoo}", []string{`, "zoo": "v5.2.0"`, ``}},
		"zoo with a path":     {"npu.zoo", []string{`"v5.2.0"`, `"../x"`}},
		"negative size":       {"bytes is -9", []string{`"bytes": 9`, `"bytes": -9`}},
		"huge size":           {"bytes is", []string{`"bytes": 9`, `"bytes": 99999999999999`}},
		"digest":              {"sha256", []string{someSHA, "abc"}},
		"vendor path above":   {"vendor", []string{`npy/p.npy`, `../p.npy`}},
		"vendor path of root": {"vendor", []string{`npy/p.npy`, `/etc/passwd`}},
	} {
		text := strings.NewReplacer(c.edits...).Replace(fullManifest)
		assert.MustTrue(t, text != fullManifest, "%s: the edit changed nothing", name)
		assert.ErrorSays(t, assert.Err(ParseManifest([]byte(text))), ErrManifest, c.says, "%s", name)
	}
	assert.ErrorIs(t, assert.Err(ParseManifest(make([]byte, maxManifest+1))), ErrManifest, "too large")
}

func TestForZoo(t *testing.T) {
	m := parseManifest(t, fullManifest)
	own, older := assert.Value(m.ForZoo("")), assert.Value(m.ForZoo("v5.1.0"))
	const vendor = "models/hailo10h/i.hef"
	assert.Equal(t, own.Files["i.hef"], File{URL: "https://host/v5.2.0/i.hef", Bytes: 9, SHA256: someSHA, Vendor: vendor})
	assert.Equal(t, older.Files["i.hef"], File{URL: "https://host/v5.1.0/i.hef", Vendor: vendor})
	assert.Equal(t, older.NPU.Zoo, "v5.1.0")
	assert.Equal(t, m.Files["i.hef"].URL+m.NPU.Zoo, "https://host/{zoo}/i.hefv5.2.0", "the manifest itself")
	assert.ErrorSays(t, assert.Err(m.ForZoo("../x")), nil, "", "a release with a path")
}

func TestForRevision(t *testing.T) {
	m := Manifest{Name: "m", Files: map[string]File{
		"a.onnx": {URL: "https://huggingface.co/x/y/resolve/main/onnx/a.onnx", Bytes: 5, SHA256: "12", Vendor: "v/a.onnx"},
		"b.hef":  {URL: "https://elsewhere/resolve/main/b.hef", Bytes: 5, SHA256: "12"},
	}}
	got, same := assert.Value(m.ForRevision("1a2b")), assert.Value(m.ForRevision("main"))
	assert.Equal(t, got.Files["a.onnx"], File{URL: "https://huggingface.co/x/y/resolve/1a2b/onnx/a.onnx", Vendor: "v/a.onnx"})
	assert.Equal(t, got.Files["b.hef"], m.Files["b.hef"])
	assert.Equal(t, same.Files["a.onnx"], m.Files["a.onnx"], "its own revision")
	for _, bad := range []string{"", "..", "a/b", "a?b", "-x", strings.Repeat("a", 200)} {
		assert.ErrorSays(t, assert.Err(m.ForRevision(bad)), nil, "revision", "%s", bad)
	}
	delete(m.Files, "a.onnx")
	assert.ErrorSays(t, assert.Err(m.ForRevision("main")), nil, "revisions", "files without revisions")
}

func TestZooRelease(t *testing.T) {
	for version, want := range map[string]string{
		"5.1.0": "v5.1.0", "5.1.1": "v5.1.0", "5.2.0": "v5.2.0", "5.3.0": "v5.3.0", "5.4.0": "v5.4.0",
		"4.23.0": "", "5.0.1": "", "": "", "5": "", "x": "", "5.-1.0": "",
	} {
		got, ok := ZooRelease(version)
		assert.True(t, got == want && ok == (want != ""), "%q: %q, %t, want %q", version, got, ok, want)
	}
}

// The manifests of the program itself.
func TestKnownManifests(t *testing.T) {
	list := assert.Value(ReadManifests(os.DirFS("../../configs/models")))
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
		for _, release := range []string{"", "v5.1.0"} {
			z := assert.Value(m.ForZoo(release))
			assert.NoError(t, z.Validate(), "%s for %q", m.Name, release)
			for name, f := range z.Files {
				if f.URL == "" || strings.ContainsAny(f.URL, "{}") {
					t.Errorf("%s: %s comes from %q", m.Name, name, f.URL)
				}
			}
		}
	}
	assert.Diff(t, []string{Preferred, "tinyclip-vit-8m-16"}, names, "known models")
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(fullManifest))
	f.Add([]byte(`{"name":"x","files":{"..":{"url":"https://h/{zoo}"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		z := assert.Value(m.ForZoo("v5.9.0"))
		assert.Must(t, z.Validate()) // also for another release of the zoo
		for _, name := range slices.Concat(m.PartFiles(AllParts), m.PartFiles(CPUPart), m.PartFiles(NPUPart)) {
			_, ok := m.Files[name]
			assert.MustTrue(t, ok && !strings.ContainsAny(name, `/\`) && name != "..", "file %q", name)
		}
	})
}
