// Package model holds CLIP models: their manifests, and the catalog of those that are part of the
// program, known to it, or installed on disk. It pulls, checks and removes their files.
package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"hailoclip/hailo/safefile"
	"hailoclip/hailo/token"
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

// Model is an installed model: a manifest and where its files are. Immutable, safe for
// concurrent use. Catalog.Resolve and Embedded make it.
type Model struct {
	Manifest
	files    map[string]modelFile // those that are there, by name
	embedded fs.FS                // where they are, if not on disk
}

type modelFile struct {
	path   string // on disk
	sha256 string // "": not known without reading it
}

// Embedded is a model whose files are part of the program, at the top of files.
func Embedded(m Manifest, files fs.FS) (*Model, error) {
	model := &Model{Manifest: m, files: map[string]modelFile{}, embedded: files}
	for name, f := range m.Files {
		info, err := fs.Stat(files, name)
		if err != nil {
			return nil, fmt.Errorf("model %s: %w", m.Name, err)
		}
		if f.Bytes != 0 && info.Size() != f.Bytes {
			return nil, fmt.Errorf("model %s: %s has %d bytes, the manifest says %d", m.Name, name, info.Size(), f.Bytes)
		}
		model.files[name] = modelFile{sha256: f.SHA256}
	}
	return model, nil
}

// Has says whether all the named files are there. The empty name is not.
func (m *Model) Has(names ...string) bool {
	for _, name := range names {
		if _, ok := m.files[name]; !ok {
			return false
		}
	}
	return true
}

// HasCPU says whether the files of the CPU encoders are there, and the tokenizer.
func (m *Model) HasCPU() bool { return m.CPU != nil && m.Has(m.CPU.Image, m.CPU.Text, m.Tokenizer) }

// HasCPUText says whether text can be encoded on the CPU.
func (m *Model) HasCPUText() bool { return m.CPU != nil && m.Has(m.CPU.Text, m.Tokenizer) }

// HasNPU says whether the NPU can encode pictures, and NPU or CPU text.
func (m *Model) HasNPU() bool {
	return m.NPU != nil && m.Has(m.NPU.Image, m.Tokenizer) && (m.HasNPUText() || m.HasCPUText())
}

// HasNPUText says whether all that text on the NPU needs is there.
func (m *Model) HasNPUText() bool {
	return m.NPU != nil && m.Has(m.NPU.Text, m.NPU.TokenEmbedding, m.NPU.TextProjection, m.Tokenizer)
}

// Embedded says whether the files are part of the program.
func (m *Model) Embedded() bool { return m.embedded != nil }

// Path returns where a file is on disk; false where it is embedded or not there.
func (m *Model) Path(name string) (string, bool) {
	f := m.files[name]
	return f.path, f.path != ""
}

// Open opens a file for reading and returns its size. The caller closes it.
func (m *Model) Open(name string) (io.ReadCloser, int64, error) {
	f, ok := m.files[name]
	if !ok {
		return nil, 0, fmt.Errorf("model %s: %q: %w", m.Name, name, fs.ErrNotExist)
	}
	var file fs.File
	var err error
	if m.embedded != nil {
		file, err = m.embedded.Open(name)
	} else {
		file, err = safefile.OpenRegular(f.path)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("model %s: %w", m.Name, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("model %s: %w", m.Name, err), file.Close())
	}
	return file, info.Size(), nil
}

const maxReadFile = 4 << 30 // bytes

// ReadFile returns the whole content of a file; the caller owns it.
func (m *Model) ReadFile(name string) ([]byte, error) {
	r, size, err := m.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxReadFile {
		return nil, fmt.Errorf("model %s: %s has %d bytes, at most %d", m.Name, name, size, int64(maxReadFile))
	}
	b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := b.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	return b.Bytes(), nil
}

// LoadTokenizer loads the tokenizer of the model. It takes about 0.1 s.
func (m *Model) LoadTokenizer() (*token.Tokenizer, error) {
	r, _, err := m.Open(m.Manifest.Tokenizer)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	t, err := token.Load(r, m.Tokens)
	if err != nil {
		return nil, fmt.Errorf("model %s: %s: %w", m.Name, m.Manifest.Tokenizer, err)
	}
	return t, nil
}

// ReadNpy reads a .npy file of the model.
func (m *Model) ReadNpy(name string) (rows, cols int, data []float32, err error) {
	r, size, err := m.Open(name)
	if err != nil {
		return 0, 0, nil, err
	}
	defer r.Close()
	if rows, cols, data, err = ReadNpy(r, size); err != nil {
		err = fmt.Errorf("model %s: %s: %w", m.Name, name, err)
	}
	return rows, cols, data, err
}

// FileSHA256 returns the hex SHA-256 of a file: the one it was checked against when it was
// installed where the file did not change since, else it reads the file.
func (m *Model) FileSHA256(name string) (string, error) {
	if f := m.files[name]; f.sha256 != "" {
		return f.sha256, nil
	}
	r, _, err := m.Open(name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", fmt.Errorf("model %s: %s: %w", m.Name, name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Digest names a text encoder made of the named files: the hex SHA-256 over their digests, in
// order, and over the numbers of the manifest that decide what comes out of them. Vectors of
// different digests must not mix.
func (m *Model) Digest(names ...string) (string, error) {
	h := sha256.New()
	transposed := m.NPU != nil && m.NPU.ProjectionTransposed
	fmt.Fprintf(h, "%d %d %q %q %d %t\n", m.EmbeddingDimension, m.ContextLength, m.Tokens.Start, m.Tokens.End, m.Tokens.PadID, transposed)
	for _, name := range names {
		sum, err := m.FileSHA256(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
