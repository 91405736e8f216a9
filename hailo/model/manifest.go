package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
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
)

var (
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
	LogitScale         float64        `json:"logit_scale,omitempty"` // exp of CLIP's learned temperature; not given: DefaultLogitScale
	Mean               [3]float32     `json:"mean"`                  // RGB, of pixels scaled to 0..1
	Std                [3]float32     `json:"std"`
	Tokens             token.Specials `json:"tokens"`

	Tokenizer string    `json:"tokenizer,omitempty"` // file name; not given: tokenizer.json
	CPU       *CPUFiles `json:"cpu,omitempty"`       // nil: the model has no CPU encoder
	NPU       *NPUFiles `json:"npu,omitempty"`       // nil: the model has no NPU encoder

	Files    map[string]File `json:"files"`              // by file name
	Accuracy map[string]any  `json:"accuracy,omitempty"` // for people: what was measured, in any form
}

// DefaultLogitScale is the ceiling that training holds CLIP's logit scale to, and what OpenAI's
// models ended at. (Radford et al. 2021, section 2.5.)
const DefaultLogitScale = 100

// CPUFiles names the ONNX encoders, in the layout of Hugging Face exports: pixel_values ->
// image_embeds, input_ids -> text_embeds. Both names may be the same file (a whole CLIP model).
type CPUFiles struct {
	Image string `json:"image"`
	Text  string `json:"text"`
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
}

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
	if m.LogitScale == 0 {
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
		list = append(list, m)
	}
	return list, nil
}

// Validate checks every field; the error names all that are wrong.
func (m Manifest) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	between := func(field string, v, low, high int) {
		check(v >= low && v <= high, "%s is %d, want %d to %d", field, v, low, high)
	}
	check(modelName.MatchString(m.Name), "name %q: want lower case letters, digits, '.', '_', '-', at most 64", m.Name)
	between("embedding_dimension", m.EmbeddingDimension, 1, 8192)
	between("image_size", m.ImageSize, 16, 1024)
	between("context_length", m.ContextLength, 2, 4096)
	check(m.LogitScale > 0 && m.LogitScale <= 1000, "logit_scale is %v, want above 0, at most 1000", m.LogitScale)
	for i := range 3 {
		check(m.Mean[i] >= 0 && m.Mean[i] <= 1, "mean[%d] is %v, want 0 to 1", i, m.Mean[i])
		check(m.Std[i] >= 1e-3 && m.Std[i] <= 10, "std[%d] is %v, want 0.001 to 10", i, m.Std[i])
	}
	errs = append(errs, m.Tokens.Validate())
	check(m.CPU != nil || m.NPU != nil, "neither cpu nor npu encoders")
	check(len(m.Files) <= maxModelFiles, "%d files, at most %d", len(m.Files), maxModelFiles)

	named := func(field, name, extension string) {
		_, ok := m.Files[name]
		check(ok && strings.HasSuffix(name, extension), "%s %q: want a %s file that files lists", field, name, extension)
	}
	named("tokenizer", m.Tokenizer, ".json")
	if m.CPU != nil {
		named("cpu.image", m.CPU.Image, ".onnx")
		named("cpu.text", m.CPU.Text, ".onnx")
	}
	if n := m.NPU; n != nil {
		named("npu.image", n.Image, ".hef")
		if n.Text != "" || n.TokenEmbedding != "" || n.TextProjection != "" {
			named("npu.text", n.Text, ".hef")
			named("npu.token_embedding", n.TokenEmbedding, ".npy")
			named("npu.text_projection", n.TextProjection, ".npy")
		} else {
			check(m.CPU != nil, "no text encoder: neither npu.text nor cpu")
		}
		check(n.Zoo == "" || zooName.MatchString(n.Zoo), "npu.zoo %q: want a release such as v5.2.0", n.Zoo)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		check(fileName.MatchString(name) && name != manifestFile && name != recordsFile, "files: %q is not a plain file name", name)
		if err := m.Files[name].validate(m.NPU != nil && m.NPU.Zoo != ""); err != nil {
			errs = append(errs, fmt.Errorf("files[%q]: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (f File) validate(zoo bool) error {
	if f.URL != "" {
		u, err := url.Parse(f.URL)
		if err != nil {
			return err
		}
		if u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
			return fmt.Errorf("url %q: want https://host/path", f.URL)
		}
		if strings.Contains(f.URL, zooMark) && !zoo {
			return fmt.Errorf("url %q: {zoo} without npu.zoo", f.URL)
		}
	}
	if f.Bytes < 0 || f.Bytes > maxModelFile {
		return fmt.Errorf("bytes is %d, want 0 to %d", f.Bytes, int64(maxModelFile))
	}
	if f.SHA256 != "" && !hexSHA256.MatchString(f.SHA256) {
		return fmt.Errorf("sha256 %q: want 64 lower case hex digits", f.SHA256)
	}
	if f.Vendor != "" && (!fs.ValidPath(f.Vendor) || f.Vendor == ".") {
		return fmt.Errorf("vendor %q: want a path below a folder", f.Vendor)
	}
	return nil
}

// Part is a part of a model's files. The zero value is all of them.
type Part string

const (
	AllParts Part = ""
	CPUPart  Part = "cpu" // the CPU encoders and the tokenizer
	NPUPart  Part = "npu" // the NPU encoders, what text needs for them, and the tokenizer
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
			names = append(names, n.Text, n.TokenEmbedding, n.TextProjection)
		} else {
			names = append(names, m.CPU.Text)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
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
