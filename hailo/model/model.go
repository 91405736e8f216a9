// Package model holds CLIP models: their manifests, and the catalog of those that are part of the
// program, known to it, or installed on disk. It pulls, checks and removes their files.
package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"hailoclip/hailo/safefile"
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

// open opens a file for reading. The caller closes it.
func (m *Model) open(name string) (file fs.File, size int64, err error) {
	f, ok := m.files[name]
	if !ok {
		return nil, 0, fmt.Errorf("model %s: %q: %w", m.Name, name, fs.ErrNotExist)
	}
	var info fs.FileInfo
	if file, err = f.open(); err == nil {
		if info, err = file.Stat(); err == nil {
			return file, info.Size(), nil
		}
		err = errors.Join(err, file.Close())
	}
	return nil, 0, fmt.Errorf("model %s: %w", m.Name, err)
}

// ReadFile returns the whole content of a file; the caller owns it.
func (m *Model) ReadFile(name string) ([]byte, error) {
	r, size, err := m.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("model %s: %s: %w", m.Name, name, err)
	}
	return data, nil
}

// LoadTokenizer loads the tokenizer of the model. It takes about 0.1 s.
func (m *Model) LoadTokenizer() (*token.Tokenizer, error) {
	r, _, err := m.open(m.Manifest.Tokenizer)
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
	r, size, err := m.open(name)
	if err != nil {
		return 0, 0, nil, err
	}
	defer r.Close()
	if rows, cols, data, err = ReadNpy(r, size); err != nil {
		err = fmt.Errorf("model %s: %s: %w", m.Name, name, err)
	}
	return rows, cols, data, err
}

// fileSHA256 returns the hex SHA-256 of a file: the one it was checked against when it was
// installed where the file did not change since, else it reads the file.
func (m *Model) fileSHA256(ctx context.Context, name string) (string, error) {
	if f := m.files[name]; f.SHA256 != "" {
		return f.SHA256, nil
	}
	r, _, err := m.open(name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	sum, err := safefile.Sum(ctx, r)
	if err != nil {
		err = fmt.Errorf("model %s: %s: %w", m.Name, name, err)
	}
	return sum, err
}

// Digest names a text encoder made of the named files: the hex SHA-256 over their digests, in
// order, and over the numbers of the manifest that decide what comes out of them. Vectors of
// different digests must not mix. Files whose digest is not known are read, until ctx ends.
func (m *Model) Digest(ctx context.Context, names ...string) (string, error) {
	h := sha256.New()
	transposed := m.NPU != nil && m.NPU.ProjectionTransposed
	fmt.Fprintf(h, "%d %d %q %q %d %t\n", m.EmbeddingDimension, m.ContextLength, m.Tokens.Start, m.Tokens.End, m.Tokens.PadID, transposed)
	for _, name := range names {
		sum, err := m.fileSHA256(ctx, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
