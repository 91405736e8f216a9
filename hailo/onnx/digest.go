package onnx

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// textDigest names all that decides the vector of a text: the tokenizer, the weights, and how
// tokens are laid out. It reads the files, so that a changed file cannot pass for the old one.
func textDigest(o Options) (string, error) {
	all := sha256.New()
	fmt.Fprintf(all, "hailo-clip text encoder, ONNX\ncontext length %d\npadding %d\n",
		o.Manifest.ContextLength, o.Manifest.Tokens.PadID)
	for _, part := range []struct {
		name string
		src  Source
	}{{"tokenizer", o.Tokenizer}, {"model", o.Text}} {
		if err := part.src.digest(all, part.name); err != nil {
			return "", fmt.Errorf("text encoder: %w", err)
		}
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// digest writes a line with the SHA-256 of each file of the source.
func (s Source) digest(w io.Writer, name string) error {
	if s.Path == "" {
		_, err := fmt.Fprintf(w, "%s %x\n", name, sha256.Sum256(s.Bytes))
		return err
	}
	paths, err := s.files()
	if err != nil {
		return err
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s %x\n", name, h.Sum(nil))
	}
	return nil
}

// files lists the file and those that hold its weights: model.onnx has them in model.onnx_data
// (and model.onnx_data_1, ...) or model.onnx.data.
func (s Source) files() ([]string, error) {
	list := []string{s.Path}
	dir, name := filepath.Split(s.Path)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return nil, err
	}
	for _, e := range entries { // sorted by name
		if rest, ok := strings.CutPrefix(e.Name(), name); ok && (strings.HasPrefix(rest, "_data") || rest == ".data") {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list, nil
}
