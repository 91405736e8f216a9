package model

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"hailoclip/hailo/safefile"
)

// checkpointKeys are the names of the two matrices in a layout of checkpoints.
type checkpointKeys struct {
	layout          string
	table           string // [vocabulary, width]
	projection      string
	projectsToFirst bool // the projection is [dimension, width] and not [width, dimension]
}

var checkpointLayouts = []checkpointKeys{
	{"Hugging Face", "text_model.embeddings.token_embedding.weight", "text_projection.weight", true},
	{"OpenCLIP", "token_embedding.weight", "text_projection", false},
}

// BuildText makes the token embedding and the text projection that the NPU's text encoder needs on the host (see
// NPUFiles) from a checkpoint of the model: a .safetensors file in the layout of Hugging Face's CLIP or of OpenCLIP. The
// encoder itself has the positions and all layers; only these two are left out of it. It writes them as float32 and
// records their digests as those of pulled files; after a crash each is the old one or the new one, and a mixture
// is found by its digests. It returns the two files.
//
// It blocks until both are on disk. Errors: ErrUnknown; ErrBusy; ErrSafetensors; ErrFile, if the checkpoint is not of
// this model; those of the disk; the cause of ctx.
func (c *Catalog) BuildText(ctx context.Context, name, checkpoint string) ([]FileState, error) {
	m, err := c.manifest(name, "")
	if err != nil {
		return nil, err
	}
	if m.NPU == nil || !m.Made(m.NPU.TokenEmbedding) || !m.Made(m.NPU.TextProjection) || c.isBuiltin(name) {
		return nil, fmt.Errorf("model %s has no text files that are made from a checkpoint", name)
	}
	f, err := safefile.OpenRegular(checkpoint)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := readSafetensors(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", checkpoint, err)
	}
	keys, err := textMatrices(s, m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", checkpoint, err)
	}
	unlock, err := c.lock(name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return c.writeText(ctx, s, keys, m)
}

// textMatrices finds the two matrices and holds their shapes to the manifest.
func textMatrices(s *safetensors, m Manifest) (keys checkpointKeys, err error) {
	for _, k := range checkpointLayouts {
		if _, ok := s.tensors[k.table]; ok {
			keys = k
		}
	}
	if keys.table == "" {
		return keys, fmt.Errorf("%w: neither %s nor %s is in it: it is no CLIP of Hugging Face or OpenCLIP",
			ErrSafetensors, checkpointLayouts[0].table, checkpointLayouts[1].table)
	}
	vocabulary, width, err := s.matrix(keys.table)
	if err != nil {
		return keys, err
	}
	in, out, err := s.matrix(keys.projection)
	if err != nil {
		return keys, err
	}
	if keys.projectsToFirst {
		in, out = out, in
	}
	if in != width || out != m.EmbeddingDimension {
		return keys, fmt.Errorf("%w: %s projects %d numbers to %d, want the %d of %s to %d: it is not a checkpoint of %s",
			ErrFile, keys.projection, in, out, width, keys.table, m.EmbeddingDimension, m.Name)
	}
	if int64(m.Tokens.PadID) >= int64(vocabulary) {
		return keys, fmt.Errorf("%w: %s has %d tokens, but the padding is token %d: it is not a checkpoint of %s",
			ErrFile, keys.table, vocabulary, m.Tokens.PadID, m.Name)
	}
	return keys, nil
}

// writeText writes both files beside their names, records them, and then gives them their names.
func (c *Catalog) writeText(ctx context.Context, s *safetensors, keys checkpointKeys, m Manifest) ([]FileState, error) {
	dir := filepath.Join(c.Dir, m.Name)
	if err := safefile.MakeFolder(dir); err != nil {
		return nil, err
	}
	recs, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	files := []FileState{{Name: m.NPU.TokenEmbedding}, {Name: m.NPU.TextProjection}}
	for i, write := range []func(io.Writer) error{
		func(w io.Writer) error { return writeMatrix(ctx, w, s, keys.table, false) },
		func(w io.Writer) error {
			return writeMatrix(ctx, w, s, keys.projection, keys.projectsToFirst != m.NPU.ProjectionTransposed)
		},
	} {
		files[i].Path = filepath.Join(dir, files[i].Name)
		if files[i].SHA256, err = writePart(files[i].Path+partSuffix, write); err != nil {
			return nil, err
		}
	}
	for i := range files {
		info, err := os.Stat(files[i].Path + partSuffix)
		if err != nil {
			return nil, err
		}
		files[i].Bytes = info.Size()
		recs.put(files[i].Name, info, "", files[i].SHA256)
		files[i].Recorded = recs[files[i].Name].Recorded
	}
	if err := recs.write(dir); err != nil { // before they get their names, so that no file is there without a record
		return nil, err
	}
	for _, f := range files {
		if err := safefile.Rename(f.Path+partSuffix, f.Path); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// writePart makes a file of what write writes, on disk when it returns, and returns its digest.
func writePart(path string, write func(io.Writer) error) (sum string, err error) {
	f, err := safefile.OpenOwn(path, os.O_WRONLY)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	if err = f.Truncate(0); err == nil {
		w := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
		err = errors.Join(write(w), w.Flush(), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		if gone := os.Remove(path); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// writeMatrix writes a matrix as a .npy file, or its transpose.
func writeMatrix(ctx context.Context, w io.Writer, s *safetensors, name string, transpose bool) error {
	rows, cols, err := s.matrix(name)
	if err != nil {
		return err
	}
	// The numbers in the file are in the same order either way: column by column is row by row of the transpose.
	shape, order := fmt.Sprintf("(%d, %d)", rows, cols), "False"
	if transpose {
		shape, order = fmt.Sprintf("(%d, %d)", cols, rows), "True"
	}
	if _, err := w.Write(npyHead(shape, order)); err != nil {
		return err
	}
	var out []byte
	return s.read(name, func(row []float32) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		out, _ = binary.Append(out[:0], binary.LittleEndian, row)
		_, err := w.Write(out)
		return err
	})
}

// npyHead is the beginning of a .npy file of float32 in version 1.0: its length is a multiple of 64.
func npyHead(shape, fortran string) []byte {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': %s, 'shape': %s, }", fortran, shape)
	const before = len(npyMagic) + 4
	header = fmt.Sprintf("%-*s\n", (before+len(header)+64)/64*64-before-1, header)
	head := append([]byte(npyMagic), 1, 0)
	head = binary.LittleEndian.AppendUint16(head, uint16(len(header)))
	return append(head, header...)
}
