package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Errors of a Catalog, wrapped with what happened.
var (
	ErrUnknown      = errors.New("unknown model")
	ErrNotInstalled = errors.New("model not installed")
	ErrFile         = errors.New("bad model file") // not what the manifest or the first pull said
	ErrBusy         = errors.New("model is being changed by another process")
	ErrDownload     = errors.New("download failed")
)

const (
	// Preferred is what the model "auto" stands for where it is installed.
	Preferred = "clip-vit-b-32"
	// Auto is the name that Resolve chooses a model for.
	Auto = "auto"
	// VendorResources is where the vendor's applications and the Python service that this one
	// replaces keep model files.
	VendorResources = "/usr/local/hailo/resources"

	manifestFile = "manifest.json"
	recordsFile  = "digests.json"
	maxModels    = 256 // folders that List looks into
)

// Catalog is the models folder: one folder for each model, DIR/NAME. Models that the program knows
// need no manifest there; any other folder with a manifest.json of the same name is a model too.
// digests.json in a model folder says what its files were when they were installed.
//
// Nothing but Pull touches the network. Nothing but Pull and Remove writes, except that the time of a
// file that was read, because it had changed, is noted in digests.json where possible. Methods may run at
// once, in several processes too. The fields must not change after the first call.
type Catalog struct {
	Dir     string     // the models folder; it need not be there
	Vendor  string     // the vendor's resources, used where a file is not in Dir; "": none. See VendorResources
	Known   []Manifest // models that can be pulled
	Builtin *Model     // the model that is part of the program; nil: none
}

// State is how much of a part of a model is there.
type State string

const (
	NotOffered State = "" // the model has no such encoder
	Missing    State = "missing"
	Partial    State = "partial"
	Complete   State = "complete"
)

// Installed is a model and what is there of it.
type Installed struct {
	Manifest Manifest
	Builtin  bool
	CPU, NPU State
	Files    []FileState // sorted by name
}

// FileState is what is known of a file of a model.
type FileState struct {
	Name   string
	Path   string // on disk; "": not there, or embedded
	Bytes  int64  // on disk; 0: not there
	Vendor bool   // found among the vendor's resources, and held to no digest
	SHA256 string // what it was checked against; "": nothing known
	Zoo    string // release of the vendor's model zoo that it was pulled from; "": not from there, or not known

	Recorded time.Time // not zero: its publisher's digest is not known, it is held to the one recorded then, when it was pulled
	Err      error     // ErrFile: it is there, but not what it should be
}

// List returns the built-in model, the known ones and those in the folder. Files that changed since
// they were installed are read; Verify reads all. An error is returned only where the folder
// cannot be read; what is wrong with a model is in its files.
func (s *Catalog) List() ([]Installed, error) {
	var list []Installed
	if b := s.Builtin; b != nil {
		in := Installed{Manifest: b.Manifest, Builtin: true, CPU: Missing}
		for _, name := range b.PartFiles(AllParts) {
			in.Files = append(in.Files, FileState{Name: name, Bytes: b.Files[name].Bytes, SHA256: b.Files[name].SHA256})
		}
		if b.HasCPU() {
			in.CPU = Complete
		}
		list = append(list, in)
	}
	names := map[string]bool{}
	for _, m := range s.Known {
		names[m.Name] = true
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("models folder: %w", err)
	}
	for _, e := range entries[:min(len(entries), maxModels)] {
		if _, err := os.Stat(filepath.Join(s.Dir, e.Name(), manifestFile)); err == nil && modelName.MatchString(e.Name()) {
			names[e.Name()] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		m, err := s.manifest(name, "")
		if err != nil {
			m.Name = name
			list = append(list, Installed{Manifest: m, Files: []FileState{{Name: manifestFile, Err: err}}})
			continue
		}
		files, err := s.files(context.Background(), m)
		if err != nil {
			files = append(files, FileState{Name: recordsFile, Err: err})
		}
		list = append(list, Installed{Manifest: m, CPU: state(m, CPUPart, files), NPU: state(m, NPUPart, files), Files: files})
	}
	return list, nil
}

// state says how much of a part is there. The tokenizer alone, which both parts share, is nothing.
func state(m Manifest, p Part, files []FileState) State {
	names := m.PartFiles(p)
	there, all := 0, len(names)-1
	tokenizer := false
	for _, f := range files {
		switch {
		case f.Bytes == 0 || f.Err != nil || !slices.Contains(names, f.Name):
		case f.Name == m.Tokenizer:
			tokenizer = true
		default:
			there++
		}
	}
	switch {
	case len(names) == 0:
		return NotOffered
	case there == 0:
		return Missing
	case there < all || !tokenizer:
		return Partial
	}
	return Complete
}

// Resolve returns the model of a name and, for people, why it is this one. "auto" is
// Preferred where the files for CPU or NPU are installed, else the built-in model. Files that
// are not what they should be count as not there, and are named in the reason. Errors:
// ErrUnknown; ErrNotInstalled, which says what to do.
func (s *Catalog) Resolve(name string) (m *Model, reason string, err error) {
	switch {
	case name == Auto || name == "":
		m, reason, err = s.installed(Preferred)
		if err == nil || s.Builtin == nil {
			return m, reason, err
		}
		return s.Builtin, fmt.Sprintf("the built-in model %s: %v", s.Builtin.Name, err), nil
	case s.Builtin != nil && name == s.Builtin.Name:
		return s.Builtin, fmt.Sprintf("model %s is built in", name), nil
	}
	return s.installed(name)
}

// installed returns a model that can encode, from the folder or the vendor's resources.
func (s *Catalog) installed(name string) (*Model, string, error) {
	manifest, err := s.manifest(name, "")
	if err != nil {
		return nil, "", err
	}
	files, err := s.files(context.Background(), manifest)
	if err != nil {
		return nil, "", err
	}
	m := &Model{Manifest: manifest, files: map[string]modelFile{}}
	var bad, missing []string
	vendor := false
	for _, f := range files {
		switch {
		case f.Err != nil:
			bad = append(bad, f.Err.Error())
		case f.Path == "":
			missing = append(missing, f.Name)
		default:
			m.files[f.Name] = modelFile{path: f.Path, sha256: f.SHA256}
			vendor = vendor || f.Vendor
		}
	}
	var parts []string
	if m.HasCPU() {
		parts = append(parts, "CPU")
	}
	if m.HasNPU() {
		parts = append(parts, "NPU")
	}
	if parts == nil {
		what := strings.Join(slices.Concat(bad, prefixed("missing: ", missing)), "; ")
		if len(m.files) == 0 && bad == nil {
			what = "none of its files is here"
		}
		return nil, "", fmt.Errorf("%w: %s (%s); install it with: hailo-clip models pull %s", ErrNotInstalled, name, what, name)
	}
	reason := fmt.Sprintf("model %s is installed for %s", name, strings.Join(parts, " and "))
	if vendor {
		reason += ", with files from " + s.Vendor
	}
	if bad != nil {
		reason += "; left out: " + strings.Join(bad, "; ")
	}
	return m, reason, nil
}

func prefixed(prefix string, names []string) []string {
	if len(names) == 0 {
		return nil
	}
	return []string{prefix + strings.Join(names, ", ")}
}

// manifest returns the known manifest of that name, or the one in its folder, with the URLs of a
// release of the model zoo ("": its own).
func (s *Catalog) manifest(name, zoo string) (Manifest, error) {
	for _, m := range s.Known {
		if m.Name == name {
			return m.ForZoo(zoo)
		}
	}
	unknown := func() error {
		names := []string{}
		for _, m := range s.Known {
			names = append(names, m.Name)
		}
		if s.Builtin != nil {
			names = append(names, s.Builtin.Name)
		}
		return fmt.Errorf("%w: %q; known are %s, and folders with a %s in %s", ErrUnknown, name, strings.Join(names, ", "), manifestFile, s.Dir)
	}
	if !modelName.MatchString(name) {
		return Manifest{}, unknown()
	}
	path := filepath.Join(s.Dir, name, manifestFile)
	data, err := readLimited(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, unknown()
	}
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(data)
	if err == nil && m.Name != name {
		err = fmt.Errorf("%w: the name is %q", ErrManifest, m.Name)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", path, err)
	}
	return m.ForZoo(zoo)
}

// files looks at every file of a model: in its folder, then among the vendor's resources.
func (s *Catalog) files(ctx context.Context, m Manifest) ([]FileState, error) {
	dir := filepath.Join(s.Dir, m.Name)
	records, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	before := maps.Clone(records)
	var list []FileState
	for _, name := range m.PartFiles(AllParts) {
		f := FileState{Name: name}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil {
			f.Path, f.Bytes = path, info.Size()
			f.SHA256, f.Err = records.check(ctx, path, info, m.Files[name])
			f.Zoo, f.Recorded = records.zoo(name, m), records.unpinned(name, m.Files[name])
		} else if v := m.Files[name].Vendor; v != "" && s.Vendor != "" {
			path = filepath.Join(s.Vendor, filepath.FromSlash(v))
			if info, err := os.Stat(path); err == nil {
				f.Path, f.Bytes, f.Vendor = path, info.Size(), true
				f.Err = checkKindOfFile(path, info)
			}
		}
		list = append(list, f)
	}
	if !maps.Equal(before, records) {
		s.note(m.Name, records)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return list, nil
}
