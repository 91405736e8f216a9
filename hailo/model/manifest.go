package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"hailoclip/hailo/token"
)

// ErrManifest says that a manifest.json is wrong.
var ErrManifest = errors.New("bad model manifest")

const (
	maxManifest   = 1 << 20  // bytes
	maxModelFile  = 16 << 30 // bytes
	maxModelFiles = 32
	maxAliases    = 32
	maxBenchmarks = 32
)

var (
	aliasName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$`)
	modelName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	fileName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hexSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)
	zooName   = regexp.MustCompile(`^v[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$`)
)

// Manifest describes a CLIP model: its numbers and its files. It is the manifest.json of a
// model folder; the known ones are in configs/models. ParseManifest checks it. Not to be changed
// afterwards: copies share what it points to.
type Manifest struct {
	Name               string         `json:"name"`
	Description        string         `json:"description,omitempty"`
	License            string         `json:"license,omitempty"`
	EmbeddingDimension int            `json:"embedding_dimension"`
	ImageSize          int            `json:"image_size"`            // pixels on a side
	ContextLength      int            `json:"context_length"`        // tokens, start and end included
	Activation         Activation     `json:"activation,omitempty"`  // not given: Softmax
	LogitScale         float64        `json:"logit_scale,omitempty"` // exp of the learned temperature; not given: DefaultLogitScale
	LogitBias          float64        `json:"logit_bias,omitempty"`  // added to the scaled cosine; with Sigmoid only
	Mean               [3]float32     `json:"mean"`                  // RGB, of pixels scaled to 0..1
	Std                [3]float32     `json:"std"`
	Tokens             token.Specials `json:"tokens"`

	Tokenizer     string        `json:"tokenizer,omitempty"`      // file name; not given: tokenizer.json
	TokenizerKind TokenizerKind `json:"tokenizer_kind,omitempty"` // of that file; not given: CLIPBPE
	CPU           *CPUFiles     `json:"cpu,omitempty"`            // nil: the model has no CPU encoder
	NPU           *NPUFiles     `json:"npu,omitempty"`            // nil: the model has no NPU encoder

	Aliases    []string    `json:"aliases,omitempty"`    // other names that clients ask for it by; see AnswersTo
	Parameters Parameters  `json:"parameters,omitzero"`  // of the encoders
	Rates      *Rates      `json:"rates,omitempty"`      // on a Hailo-10H; nil: not published
	Benchmarks []Benchmark `json:"benchmarks,omitempty"` // to choose by

	Files    map[string]File `json:"files"`              // by file name
	Accuracy map[string]any  `json:"accuracy,omitempty"` // for people: what was measured, in any form
}

// Activation says how a model was trained to turn the scaled cosines of labels into probabilities.
type Activation string

const (
	Softmax Activation = "softmax" // over all labels (CLIP)
	Sigmoid Activation = "sigmoid" // of LogitScale * cosine + LogitBias, of each label by itself (SigLIP)
)

// TokenizerKind is the kind of a tokenizer's file.
type TokenizerKind string

const (
	CLIPBPE       TokenizerKind = "clip-bpe"      // CLIP's byte pairs, a tokenizer.json
	SentencePiece TokenizerKind = "sentencepiece" // SigLIP's; cannot be read yet, see Model.LoadTokenizer
)

// DefaultLogitScale is the ceiling that training holds CLIP's logit scale to, and what OpenAI's
// models ended at. (Radford et al. 2021, section 2.5.)
const DefaultLogitScale = 100

// CPUFiles names the ONNX encoders, in the layout of Hugging Face exports: pixel_values ->
// image_embeds, input_ids -> text_embeds. Both names may be the same file (a whole CLIP model).
type CPUFiles struct {
	Image string `json:"image"`
	Text  string `json:"text"`
	// Alone says that a run must take one image or text: with weights of 8 bits that were quantised
	// dynamically, all of a run share one scale, and a vector would depend on its neighbours.
	Alone bool `json:"alone,omitempty"`
}

// NPUFiles names the Hailo-10H encoders and what text needs on the host. The last three files
// come together or not at all.
type NPUFiles struct {
	Image          string `json:"image"`                     // .hef
	Text           string `json:"text,omitempty"`            // .hef; "": text is encoded on the CPU
	TokenEmbedding string `json:"token_embedding,omitempty"` // .npy float32 [vocabulary, width]
	TextProjection string `json:"text_projection,omitempty"` // .npy float32 [width, dimension] or its transpose
	// ProjectionTransposed says that TextProjection is [dimension, width] (a Hugging Face
	// weight), not [width, dimension] (OpenAI's x @ text_projection).
	ProjectionTransposed bool `json:"projection_transposed,omitempty"`
	// Checkpoint is the https address of the safetensors file that Catalog.BuildText can make TokenEmbedding
	// and TextProjection from, for people; "": not known, or not needed.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Zoo is the release of the vendor's model zoo that stands for {zoo} in the URLs of the
	// files. See ForZoo.
	Zoo string `json:"zoo,omitempty"`
}

// File is where a model file comes from and what it must be.
type File struct {
	URL    string `json:"url,omitempty"`    // https; "": it comes with --from-dir only
	Bytes  int64  `json:"bytes,omitempty"`  // 0: not known
	SHA256 string `json:"sha256,omitempty"` // hex; "": recorded at the first pull and held to afterwards
	Vendor string `json:"vendor,omitempty"` // where the vendor's applications keep it, below their resources folder

	AboutBytes int64 `json:"about_bytes,omitempty"` // for people, where Bytes is not known: nothing is held to it
}

// Size is Bytes, or AboutBytes where that is not known; 0 where neither is.
func (f File) Size() int64 { return cmp.Or(f.Bytes, f.AboutBytes) }

// ParseManifest reads a manifest and fills in what may be left out. It refuses unknown fields and
// values out of bounds with ErrManifest, which names each of them.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	if len(data) > maxManifest {
		return m, fmt.Errorf("%w: %d bytes, at most %d", ErrManifest, len(data), maxManifest)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return m, fmt.Errorf("%w: something follows the object", ErrManifest)
	}
	var threes struct{ Mean, Std []float32 } // the decoder fills an array from any number of values
	if err := json.Unmarshal(data, &threes); err != nil || len(threes.Mean) != 3 || len(threes.Std) != 3 {
		return m, fmt.Errorf("%w: mean and std: want three numbers each", ErrManifest)
	}
	if m.Tokenizer == "" {
		m.Tokenizer = "tokenizer.json"
	}
	m.TokenizerKind = cmp.Or(m.TokenizerKind, CLIPBPE)
	m.Activation = cmp.Or(m.Activation, Softmax)
	if m.LogitScale == 0 && m.Activation == Softmax { // a sigmoid means nothing without its own
		m.LogitScale = DefaultLogitScale
	}
	if err := m.Validate(); err != nil {
		return m, fmt.Errorf("%w: %q: %w", ErrManifest, m.Name, err)
	}
	return m, nil
}

// ReadManifests parses all *.json at the top of files, sorted by name.
func ReadManifests(files fs.FS) ([]Manifest, error) {
	names, err := fs.Glob(files, "*.json")
	if err != nil {
		return nil, err
	}
	var list []Manifest
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		m, err := ParseManifest(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if m.Name+".json" != name {
			return nil, fmt.Errorf("%s: %w: the name is %q", name, ErrManifest, m.Name)
		}
		if err := distinct(append(list, m)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// AnswersTo says whether name is the model's, or one of its aliases.
func (m Manifest) AnswersTo(name string) bool {
	return name == m.Name || slices.Contains(m.Aliases, name)
}

// distinct says, with ErrManifest, which name or alias two of the models share.
func distinct(list []Manifest) error {
	owner := map[string]string{}
	for _, m := range list {
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			if first, taken := owner[name]; taken {
				return fmt.Errorf("%w: both %s and %s are called %q", ErrManifest, first, m.Name, name)
			}
			owner[name] = m.Name
		}
	}
	return nil
}

// Part is a part of a model's files. The zero value is all of them.
type Part string

const (
	AllParts Part = ""
	CPUPart  Part = "cpu" // the CPU encoders and the tokenizer
	NPUPart  Part = "npu" // the NPU encoders, what text needs for them or else the CPU's text encoder, and the tokenizer
)

// PartFiles returns the sorted names of the files of a part; none where the model has no such
// encoder.
func (m Manifest) PartFiles(p Part) []string {
	var names []string
	if p == AllParts {
		return slices.Sorted(maps.Keys(m.Files))
	}
	if p == CPUPart && m.CPU != nil {
		names = []string{m.CPU.Image, m.CPU.Text, m.Tokenizer}
	}
	if n := m.NPU; p == NPUPart && n != nil {
		names = []string{n.Image, m.Tokenizer}
		if n.Text != "" {
			names = append(names, n.Text)
		}
		if n.Text != "" && (m.CPU == nil || !m.Made(n.TokenEmbedding)) {
			names = append(names, n.TokenEmbedding, n.TextProjection)
		} else { // texts are encoded on the CPU, at least until those files are made
			names = append(names, m.CPU.Text)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Made says whether a file is to be had neither from the network nor from the vendor's applications, but made by
// Catalog.BuildText: the token embedding and the text projection that the vendor does not publish.
func (m Manifest) Made(name string) bool {
	f, listed := m.Files[name]
	return listed && m.NPU != nil && (name == m.NPU.TokenEmbedding || name == m.NPU.TextProjection) && f.URL == "" && f.Vendor == ""
}

// HowToMake tells people how the files are made that Made is true of.
func (m Manifest) HowToMake() string {
	from := ""
	if m.NPU.Checkpoint != "" {
		from = ", which is " + m.NPU.Checkpoint
	}
	return fmt.Sprintf("make %s and %s with: hailo-clip models build-text %s CHECKPOINT.safetensors%s",
		m.NPU.TokenEmbedding, m.NPU.TextProjection, m.Name, from)
}

const zooMark = "{zoo}"

// ForZoo returns the manifest with the URLs of a release of the vendor's model zoo, such as
// "v5.1.0"; "" stands for the manifest's own. For another release than that, it has no sizes and digests of the files.
func (m Manifest) ForZoo(release string) (Manifest, error) {
	if m.NPU == nil || m.NPU.Zoo == "" {
		return m, nil
	}
	if release == "" {
		release = m.NPU.Zoo
	}
	if !zooName.MatchString(release) {
		return m, fmt.Errorf("model zoo release %q: want one such as v5.2.0", release)
	}
	m.Files = maps.Clone(m.Files)
	for name, f := range m.Files {
		if !strings.Contains(f.URL, zooMark) {
			continue
		}
		f.URL = strings.ReplaceAll(f.URL, zooMark, release)
		if release != m.NPU.Zoo {
			f.Bytes, f.SHA256 = 0, ""
		}
		m.Files[name] = f
	}
	npu := *m.NPU
	npu.Zoo = release
	m.NPU = &npu
	return m, nil
}

var (
	revisionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	revisionPart = regexp.MustCompile(`^(https://huggingface\.co/[^/]+/[^/]+/resolve/)([^/]+)(/.*)$`)
)

// ForRevision returns the manifest with the URLs of a revision of the repository on huggingface.co that it is
// from: a commit, or a tag or branch without slashes. For another revision than its own, it has no sizes and digests of
// the files.
func (m Manifest) ForRevision(revision string) (Manifest, error) {
	if !revisionName.MatchString(revision) {
		return m, fmt.Errorf("revision %q: want a commit, or a tag without slashes", revision)
	}
	m.Files = maps.Clone(m.Files)
	found := false
	for name, f := range m.Files {
		part := revisionPart.FindStringSubmatch(f.URL)
		if part == nil {
			continue
		}
		if found = true; part[2] != revision {
			m.Files[name] = File{URL: part[1] + revision + part[3], Vendor: f.Vendor}
		}
	}
	if !found {
		return m, fmt.Errorf("model %s has no files with revisions", m.Name)
	}
	return m, nil
}

// ZooRelease returns the release of the model zoo that goes with a version of HailoRT: the zoo
// has one for each minor version, so 5.1.1 goes with v5.1.0. False for versions before 5.1, whose
// zoo has no models for Hailo-10H, and for what is not a version.
func ZooRelease(hailoRT string) (string, bool) {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(hailoRT, "%d.%d.%d", &major, &minor, &patch); n != 3 || major != 5 || minor < 1 || minor > 999 {
		return "", false
	}
	return fmt.Sprintf("v%d.%d.0", major, minor), true
}
