package model

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

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
	switch m.Activation {
	case Softmax:
		check(m.LogitBias == 0, "logit_bias is %v, but only a sigmoid has one", m.LogitBias)
	case Sigmoid:
		check(m.LogitBias >= -1000 && m.LogitBias <= 1000, "logit_bias is %v, want -1000 to 1000", m.LogitBias)
	default:
		check(false, "activation %q: want softmax or sigmoid", m.Activation)
	}
	extensions := []string{".json"}
	switch m.TokenizerKind {
	case CLIPBPE:
		errs = append(errs, m.Tokens.Validate())
	case SentencePiece: // it has no start token, and its own marks
		between("tokens.pad_id", int(m.Tokens.PadID), 0, 1<<20-1)
		extensions = append(extensions, ".model")
	default:
		check(false, "tokenizer_kind %q: want clip-bpe or sentencepiece", m.TokenizerKind)
	}
	check(len(m.Aliases) <= maxAliases, "%d aliases, at most %d", len(m.Aliases), maxAliases)
	for i, alias := range m.Aliases[:min(len(m.Aliases), maxAliases)] {
		check(aliasName.MatchString(alias), "alias %q: want letters, digits and ._:/@-, at most 128", alias)
		check(alias != m.Name && !slices.Contains(m.Aliases[:i], alias), "alias %q is there twice", alias)
	}
	errs = append(errs, m.validateFigures())
	check(m.CPU != nil || m.NPU != nil, "neither cpu nor npu encoders")
	check(len(m.Files) <= maxModelFiles, "%d files, at most %d", len(m.Files), maxModelFiles)

	named := func(field, name string, extensions ...string) {
		_, ok := m.Files[name]
		check(ok && slices.Contains(extensions, filepath.Ext(name)), "%s %q: want a %s file that files lists", field, name, extensions[0])
	}
	named("tokenizer", m.Tokenizer, extensions...)
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
		check(n.Checkpoint == "" || n.TokenEmbedding != "", "npu.checkpoint without npu.token_embedding")
		if err := validateURL(n.Checkpoint); err != nil {
			errs = append(errs, fmt.Errorf("npu.checkpoint: %w", err))
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

// validateURL accepts the addresses of files, and none.
func validateURL(address string) error {
	u, err := url.Parse(address)
	if err == nil && address != "" && (u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "") {
		err = fmt.Errorf("url %q: want https://host/path", address)
	}
	return err
}

func (f File) validate(zoo bool) error {
	if err := validateURL(f.URL); err != nil {
		return err
	}
	if strings.Contains(f.URL, zooMark) && !zoo {
		return fmt.Errorf("url %q: {zoo} without npu.zoo", f.URL)
	}
	for i, n := range []int64{f.Bytes, f.AboutBytes} {
		if n < 0 || n > maxModelFile {
			return fmt.Errorf("%s is %d, want 0 to %d", []string{"bytes", "about_bytes"}[i], n, int64(maxModelFile))
		}
	}
	if f.SHA256 != "" && !hexSHA256.MatchString(f.SHA256) {
		return fmt.Errorf("sha256 %q: want 64 lower case hex digits", f.SHA256)
	}
	if f.Vendor != "" && (!fs.ValidPath(f.Vendor) || f.Vendor == ".") {
		return fmt.Errorf("vendor %q: want a path below a folder", f.Vendor)
	}
	return nil
}
