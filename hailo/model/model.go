// Package model holds CLIP models: their manifests, and the catalog of those that are part of the
// program, known to it, or installed on disk. It pulls, checks and removes their files.
package model

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"hailoclip/hailo/token"
)

// Model is an installed model: a manifest and where its files are. Immutable, safe for
// concurrent use. Catalog.Resolve and Embedded make it.
type Model struct {
	Manifest
	files    map[string]FileState // those that are there, by name
	embedded bool
}

// Embedded is a model whose files are part of the program, at the top of files.
func Embedded(m Manifest, files fs.FS) (*Model, error) {
	model := &Model{Manifest: m, files: map[string]FileState{}, embedded: true}
	for name, f := range m.Files {
		info, err := fs.Stat(files, name)
		if err != nil {
			return nil, fmt.Errorf("model %s: %w", m.Name, err)
		}
		if f.Bytes != 0 && info.Size() != f.Bytes {
			return nil, fmt.Errorf("model %s: %s has %d bytes, the manifest says %d", m.Name, name, info.Size(), f.Bytes)
		}
		model.files[name] = FileState{Name: name, Bytes: info.Size(), SHA256: f.SHA256, embedded: files}
	}
	return model, nil
}

// Has says whether all the named files are there. The empty name is not.
func (m *Model) Has(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return m.files[name].Name == "" })
}

// HasCPU says whether the files of the CPU encoders are there, and the tokenizer.
func (m *Model) HasCPU() bool { return m.CPU != nil && m.Has(m.CPU.Image, m.CPU.Text, m.Tokenizer) }

// HasCPUText says whether text can be encoded on the CPU.
func (m *Model) HasCPUText() bool { return m.CPU != nil && m.Has(m.CPU.Text, m.Tokenizer) }

// HasNPU says whether the NPU can encode images, and NPU or CPU text.
func (m *Model) HasNPU() bool {
	return m.NPU != nil && m.Has(m.NPU.Image, m.Tokenizer) && (m.HasNPUText() || m.HasCPUText())
}

// HasNPUText says whether all that text on the NPU needs is there.
func (m *Model) HasNPUText() bool {
	return m.NPU != nil && m.Has(m.NPU.Text, m.NPU.TokenEmbedding, m.NPU.TextProjection, m.Tokenizer)
}

// Embedded says whether the files are part of the program.
func (m *Model) Embedded() bool { return m.embedded }

// Path returns where a file is on disk; false where it is embedded or not there.
func (m *Model) Path(name string) (string, bool) {
	f := m.files[name]
	return f.Path, f.Path != ""
}

// read calls read with an open file. Error: fs.ErrNotExist, or what read returned.
func (m *Model) read(name string, read func(r io.Reader, size int64) error) error {
	f := m.files[name]
	r, err := f.open()
	if err == nil {
		defer r.Close()
		err = read(r, f.Bytes)
	}
	if err != nil {
		err = fmt.Errorf("model %s: %s: %w", m.Name, name, err)
	}
	return err
}

// ReadFile returns the whole content of a file; the caller owns it.
func (m *Model) ReadFile(name string) (data []byte, err error) {
	err = m.read(name, func(r io.Reader, size int64) error {
		data = make([]byte, size)
		_, err := io.ReadFull(r, data)
		return err
	})
	return data, err
}

// ErrTokenizerKind says that tokenizers of that kind cannot be read yet.
var ErrTokenizerKind = errors.New("tokenizers of this kind cannot be read yet")

// LoadTokenizer loads the tokenizer of the model. It takes about 0.1 s. Errors: ErrTokenizerKind, token.ErrFile.
func (m *Model) LoadTokenizer() (t *token.Tokenizer, err error) {
	if kind := cmp.Or(m.TokenizerKind, CLIPBPE); kind != CLIPBPE {
		return nil, fmt.Errorf("model %s: tokenizer_kind %s: %w, only %s", m.Name, kind, ErrTokenizerKind, CLIPBPE)
	}
	err = m.read(m.Manifest.Tokenizer, func(r io.Reader, _ int64) error {
		t, err = token.Load(r, m.Tokens)
		return err
	})
	return t, err
}

// ReadNpy reads a .npy file of the model.
func (m *Model) ReadNpy(name string) (rows, cols int, data []float32, err error) {
	err = m.read(name, func(r io.Reader, size int64) error {
		rows, cols, data, err = ReadNpy(r, size)
		return err
	})
	return rows, cols, data, err
}

// Digest names a text encoder made of the named files: the hex SHA-256 over their digests, in
// order, and over the numbers of the manifest that decide what comes out of them. Vectors of
// different digests must not mix. Files whose digest is not known are read, until ctx ends.
func (m *Model) Digest(ctx context.Context, names ...string) (string, error) {
	transposed := m.NPU != nil && m.NPU.ProjectionTransposed
	return m.digest(ctx, fmt.Sprintf("%d %d %q %q %d %t\n",
		m.EmbeddingDimension, m.ContextLength, m.Tokens.Start, m.Tokens.End, m.Tokens.PadID, transposed), names)
}

// ImageDigest names an image encoder as Digest does one of texts.
func (m *Model) ImageDigest(ctx context.Context, names ...string) (string, error) {
	return m.digest(ctx, fmt.Sprintf("image %d %d %v %v\n", m.EmbeddingDimension, m.ImageSize, m.Mean, m.Std), names)
}

func (m *Model) digest(ctx context.Context, numbers string, names []string) (string, error) {
	h := sha256.New()
	h.Write([]byte(numbers))
	for _, name := range names {
		f := m.files[name]
		if f.SHA256 == "" {
			var err error
			if f.SHA256, err = f.hash(ctx); err != nil {
				return "", fmt.Errorf("model %s: %s: %w", m.Name, name, err)
			}
		}
		fmt.Fprintln(h, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
