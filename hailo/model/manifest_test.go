package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

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

// What a manifest of an older version leaves out is what CLIP has.
func TestManifestDefaults(t *testing.T) {
	m := parseManifest(t, fullManifest)
	assert.Equal(t, m.Activation, Softmax)
	assert.Equal(t, m.TokenizerKind, CLIPBPE)
	assert.True(t, m.LogitBias == 0 && m.Rates == nil && m.Benchmarks == nil && m.Aliases == nil, "%+v", m)
	assert.True(t, m.AnswersTo("full") && !m.AnswersTo(""), "names")
}

// sigLIP are edits that make fullManifest one of a model like SigLIP.
var sigLIP = []string{`"logit_scale": 50,`, `"activation": "sigmoid", "logit_scale": 117.33, "logit_bias": -12.93, "tokenizer_kind": "sentencepiece",
  "aliases": ["ViT-B-16-SigLIP__webli", "google/siglip-base-patch16-224"], "parameters": {"image": 92100000, "text": 85600000},
  "rates": {"image": {"batch_1": 39.6, "batch_8": 88.1}, "text": {"batch_1": 34.1, "batch_8": 62.6}, "source": "the zoo"},
  "benchmarks": [{"what": "CIFAR-100 top-1", "float": 72.2, "chip": 71.8, "source": "the zoo"}],`,
	`"start": "<|startoftext|>", "end": "<|endoftext|>"`, `"start": "", "end": "</s>"`}

func TestManifestOfSigLIP(t *testing.T) {
	m := parseManifest(t, fullManifest, sigLIP...)
	assert.True(t, m.Activation == Sigmoid && m.LogitScale == 117.33 && m.LogitBias == -12.93, "%+v", m)
	assert.True(t, m.AnswersTo("google/siglip-base-patch16-224") && !m.AnswersTo("siglip"), "aliases %q", m.Aliases)
	assert.Diff(t, &Rates{&Rate{39.6, 88.1}, &Rate{34.1, 62.6}, "the zoo"}, m.Rates)
	assert.Diff(t, []Benchmark{{"CIFAR-100 top-1", 72.2, 71.8, "the zoo"}}, m.Benchmarks)
	m = parseManifest(t, fullManifest, append(sigLIP, `"tokenizer.json": {`, `"spiece.model": {`, `"files"`, `"tokenizer": "spiece.model", "files"`)...)
	assert.Equal(t, m.Tokenizer, "spiece.model")
	for name, c := range map[string]struct {
		says  string
		edits []string
	}{
		"activation":        {"activation \"relu\"", []string{`"sigmoid"`, `"relu"`}},
		"bias of a softmax": {"only a sigmoid", []string{`"sigmoid"`, `"softmax"`}},
		"no scale":          {"logit_scale is 0", []string{`"logit_scale": 117.33, `, ``}},
		"huge bias":         {"logit_bias is -12930", []string{`-12.93`, `-12930`}},
		"tokenizer kind":    {"tokenizer_kind \"wordpiece\"", []string{`"sentencepiece"`, `"wordpiece"`}},
		"CLIP's marks":      {"tokens.start", []string{`"sentencepiece"`, `"clip-bpe"`}},
		"CLIP's file":       {"tokenizer \"x.model\"", []string{`"sentencepiece"`, `"clip-bpe", "tokenizer": "x.model"`}},
		"padding":           {"tokens.pad_id", []string{`"pad_id": 3`, `"pad_id": -3`}},
		"alias with a line": {"alias", []string{`ViT-B-16-SigLIP__webli`, `x\ny`}},
		"alias twice":       {"twice", []string{`ViT-B-16-SigLIP__webli`, `google/siglip-base-patch16-224`}},
		"many aliases":      {"33 aliases", []string{`"ViT-B-16-SigLIP__webli"`, strings.Repeat(`"a", `, 31) + `"b"`}},
		"alias is the name": {"twice", []string{`ViT-B-16-SigLIP__webli`, `full`}},
		"parameters":        {"parameters: -1", []string{`85600000`, `-1`}},
		"no rate":           {"rates.image.batch_1", []string{`39.6`, `0`}},
		"slower together":   {"rates.image.batch_8 is 30", []string{`88.1`, `30`}},
		"too fast together": {"rates.text.batch_8 is 300", []string{`62.6`, `300`}},
		"rates of nobody":   {"rates: no source", []string{`62.6}, "source": "the zoo"`, `62.6}, "source": ""`}},
		"percent":           {"benchmarks[0]", []string{`71.8`, `718`}},
		"nothing measured":  {"benchmarks[0]", []string{`CIFAR-100 top-1`, ``}},
		"about":             {"about_bytes is -1", []string{`"vendor": "npy/p.npy"`, `"about_bytes": -1`}},
		"checkpoint":        {"npu.checkpoint", []string{`"zoo": "v5.2.0"`, `"zoo": "v5.2.0", "checkpoint": "http://host/x"`}},
	} {
		first := strings.NewReplacer(sigLIP...).Replace(fullManifest)
		text := strings.NewReplacer(c.edits...).Replace(first)
		assert.MustTrue(t, text != first, "%s: the edit changed nothing", name)
		assert.ErrorSays(t, assert.Err(ParseManifest([]byte(text))), ErrManifest, c.says, "%s", name)
	}
}

// Two models must not be called the same.
func TestReadManifests(t *testing.T) {
	file := func(edits ...string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(strings.NewReplacer(edits...).Replace(fullManifest))}
	}
	a := []string{`"full"`, `"a", "aliases": ["x"]`}
	for _, b := range []string{`"b"`, `"b", "aliases": ["a"]`, `"b", "aliases": ["y", "x"]`} {
		list, err := ReadManifests(fstest.MapFS{"a.json": file(a...), "b.json": file(`"full"`, b)})
		if b == `"b"` {
			assert.True(t, err == nil && len(list) == 2, "%d manifests, %v", len(list), err)
		} else {
			assert.ErrorSays(t, err, ErrManifest, "both a and b are called", "%s", b)
		}
	}
	assert.ErrorSays(t, assert.Err(ReadManifests(fstest.MapFS{"b.json": file(a...)})), ErrManifest, `the name is "a"`, "another name")
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
		assert.True(t, (m.NPU == nil) == (m.Rates == nil) && (m.NPU == nil) == (m.Benchmarks == nil), "%s: NPU files without figures, or the reverse", m.Name)
		assert.Equal(t, strings.HasSuffix(m.Name, "-int8"), m.CPU != nil && m.CPU.Alone, "%s: quantised", m.Name)
		assert.True(t, m.Parameters.Image > 0 && m.Parameters.Text > 0, "%s: no parameters", m.Name)
		for _, release := range []string{"", "v5.1.0"} {
			z := assert.Value(m.ForZoo(release))
			assert.NoError(t, z.Validate(), "%s for %q", m.Name, release)
			for name, f := range z.Files {
				if (f.URL == "") != m.Made(name) || strings.ContainsAny(f.URL, "{}") {
					t.Errorf("%s: %s comes from %q", m.Name, name, f.URL)
				}
				if filepath.Ext(name) == ".hef" {
					assert.True(t, strings.HasSuffix(f.URL, "/"+z.NPU.Zoo+"/hailo10h/"+name), "%s: %s comes from %q", m.Name, name, f.URL)
				}
			}
		}
	}
	assert.Diff(t, []string{
		"clip-resnet-50", "clip-resnet-50x4", "clip-vit-b-16", "clip-vit-b-16-int8", Preferred, "clip-vit-b-32-int8", "clip-vit-l-14-laion2b",
		"tinyclip-vit-39m-16", "tinyclip-vit-39m-16-int8", "tinyclip-vit-40m-32", "tinyclip-vit-40m-32-int8", "tinyclip-vit-61m-32",
		"tinyclip-vit-8m-16", "tinyclip-vit-8m-16-int8",
	}, slices.Sorted(slices.Values(names)), "known models")
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(fullManifest))
	f.Add([]byte(strings.NewReplacer(sigLIP...).Replace(fullManifest)))
	f.Add([]byte(strings.NewReplacer(made...).Replace(fullManifest)))
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
