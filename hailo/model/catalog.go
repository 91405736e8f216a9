package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hailoclip/hailo/safefile"
)

// Errors of a Catalog, wrapped with what happened.
var (
	ErrUnknown      = errors.New("unknown model")
	ErrNotInstalled = errors.New("model not installed")
	ErrFile         = errors.New("bad model file") // not what the manifest or the first pull said
	ErrBusy         = errors.New("model is being changed by another process")
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
// Nothing but Pull touches the network. Nothing but Pull, BuildText and Remove writes, except that the time of a
// file that was read, because it had changed, is noted in digests.json where possible. Methods may run at
// once, in several processes too. The fields must not change after the first call.
type Catalog struct {
	Dir     string     // the models folder; it need not be there
	Vendor  string     // the vendor's resources, used where a file is not in Dir; "": none. See VendorResources
	Known   []Manifest // models that can be pulled
	Builtin *Model     // the model that is part of the program; nil: none
}

func (c *Catalog) isBuiltin(name string) bool { return c.Builtin != nil && name == c.Builtin.Name }

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
	Bytes  int64  // 0: not there
	Vendor bool   // found among the vendor's resources, and held to no digest
	SHA256 string // what it was checked against; "": nothing known
	Zoo    string // release of the vendor's model zoo that it was pulled from; "": not from there, or not known

	Recorded time.Time // not zero: its publisher's digest is not known, it is held to the one recorded then, when it was pulled
	Err      error     // ErrFile: it is there, but not what it should be

	embedded fs.FS // where it is, if not on disk
}

// open opens the file for reading. Error: fs.ErrNotExist where it is not there.
func (f FileState) open() (io.ReadCloser, error) {
	if f.embedded != nil {
		return f.embedded.Open(f.Name)
	}
	return safefile.OpenRegular(f.Path)
}

// hash reads the file and returns its hex SHA-256.
func (f FileState) hash(ctx context.Context) (string, error) {
	r, err := f.open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	return safefile.Sum(ctx, r)
}

// List returns the built-in model, the known ones and those in the folder. Files that changed since
// they were installed are read; Verify reads all. An error is returned only where the folder
// cannot be read, or for the cause of ctx; what is wrong with a model is in its files.
func (c *Catalog) List(ctx context.Context) ([]Installed, error) {
	var names []string
	for _, m := range c.Known {
		names = append(names, m.Name)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("models folder: %w", err)
	}
	for _, e := range entries[:min(len(entries), maxModels)] {
		if _, err := os.Stat(filepath.Join(c.Dir, e.Name(), manifestFile)); err == nil && modelName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if c.Builtin != nil {
		names = append([]string{c.Builtin.Name}, slices.DeleteFunc(names, c.isBuiltin)...)
	}
	var list []Installed
	for _, name := range names {
		m, err := c.manifest(name, "")
		if err != nil {
			m.Name = name
			list = append(list, Installed{Manifest: m, Files: []FileState{{Name: manifestFile, Err: err}}})
			continue
		}
		files, err := c.files(ctx, m)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			files = append(files, FileState{Name: recordsFile, Err: err})
		}
		list = append(list, Installed{m, c.isBuiltin(name), state(m, CPUPart, files), state(m, NPUPart, files), files})
	}
	return list, nil
}

// state says how much of a part is there. The tokenizer alone, which both parts share, is nothing.
func state(m Manifest, p Part, files []FileState) State {
	names := m.PartFiles(p)
	missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(files, func(f FileState) bool { return f.Name == name && f.Bytes != 0 && f.Err == nil })
	})
	switch there := len(names) - len(missing); {
	case len(names) == 0:
		return NotOffered
	case there == 0, there == 1 && !slices.Contains(missing, m.Tokenizer):
		return Missing
	case there < len(names):
		return Partial
	}
	return Complete
}

// Resolve returns the model of a name and, for people, why it is this one. "auto" is
// Preferred where the files for CPU or NPU are installed, else the built-in model. Files that
// are not what they should be count as not there, and are named in the reason. Files that changed
// since they were installed are read. Errors: ErrUnknown; ErrNotInstalled, which says what to do; the
// cause of ctx.
func (c *Catalog) Resolve(ctx context.Context, name string) (m *Model, reason string, err error) {
	switch {
	case name == Auto || name == "":
		m, reason, err = c.installed(ctx, Preferred)
		if err == nil || c.Builtin == nil || ctx.Err() != nil {
			return m, reason, err
		}
		return c.Builtin, fmt.Sprintf("the built-in model %s: %v", c.Builtin.Name, err), nil
	case c.isBuiltin(name):
		return c.Builtin, fmt.Sprintf("model %s is built in", name), nil
	}
	return c.installed(ctx, name)
}

// installed returns a model that can encode, from the folder or the vendor's resources.
func (c *Catalog) installed(ctx context.Context, name string) (*Model, string, error) {
	manifest, err := c.manifest(name, "")
	if err != nil {
		return nil, "", err
	}
	files, err := c.files(ctx, manifest)
	if err != nil {
		return nil, "", err
	}
	m := &Model{Manifest: manifest, files: map[string]FileState{}}
	var bad, missing []string
	vendor := ""
	for _, f := range files {
		switch {
		case f.Err != nil:
			bad = append(bad, f.Err.Error())
		case f.Path == "":
			missing = append(missing, f.Name)
		default:
			m.files[f.Name] = f
			if f.Vendor {
				vendor = ", with files from " + c.Vendor
			}
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
		if len(m.files) == 0 && bad == nil {
			bad = []string{"none of its files is here"}
		} else if missing != nil {
			bad = append(bad, "missing: "+strings.Join(missing, ", "))
		}
		return nil, "", fmt.Errorf("%w: %s (%s); %s", ErrNotInstalled, name, strings.Join(bad, "; "), howToInstall(manifest, missing))
	}
	reason := fmt.Sprintf("model %s is installed for %s%s", name, strings.Join(parts, " and "), vendor)
	if bad != nil {
		reason += "; left out: " + strings.Join(bad, "; ")
	}
	if m.HasNPU() && slices.ContainsFunc(missing, manifest.Made) {
		reason += "; texts are encoded on the CPU; for the NPU " + manifest.HowToMake()
	}
	return m, reason, nil
}

// howToInstall tells people what brings the missing files: a pull, BuildText, or both.
func howToInstall(m Manifest, missing []string) string {
	var how []string
	if missing == nil || slices.ContainsFunc(missing, func(name string) bool { return !m.Made(name) }) {
		how = append(how, "install it with: hailo-clip models pull "+m.Name)
	}
	if slices.ContainsFunc(missing, m.Made) {
		how = append(how, m.HowToMake())
	}
	return strings.Join(how, "; ")
}

// Manifest returns the manifest of that name, built in, known, or in its folder. Errors: ErrUnknown, ErrManifest.
func (c *Catalog) Manifest(name string) (Manifest, error) { return c.manifest(name, "") }

// known are the manifests that are part of the program; the caller may append to them.
func (c *Catalog) known() []Manifest {
	list := slices.Clip(c.Known)
	if c.Builtin != nil {
		list = append(list, c.Builtin.Manifest)
	}
	return list
}

// manifest returns the manifest of that name, built in, known, or in its folder, with the URLs of a
// release of the model zoo ("": its own).
func (c *Catalog) manifest(name, zoo string) (Manifest, error) {
	names := []string{}
	for _, m := range c.known() {
		if m.Name == name {
			return m.ForZoo(zoo)
		}
		names = append(names, m.Name)
	}
	unknown := fmt.Errorf("%w: %q; known are %s, and folders with a %s in %s", ErrUnknown, name, strings.Join(names, ", "), manifestFile, c.Dir)
	if !modelName.MatchString(name) {
		return Manifest{}, unknown
	}
	path := filepath.Join(c.Dir, name, manifestFile)
	data, err := safefile.ReadFile(path, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, unknown
	}
	if err != nil {
		return Manifest{}, err
	}
	m, err := ParseManifest(data)
	if err == nil && m.Name != name {
		err = fmt.Errorf("%w: the name is %q", ErrManifest, m.Name)
	}
	if err == nil {
		err = distinct(append(c.known(), m))
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", path, err)
	}
	return m.ForZoo(zoo)
}

// files looks at every file of a model: in the program, or in its folder, else among the vendor's
// resources.
func (c *Catalog) files(ctx context.Context, m Manifest) (list []FileState, err error) {
	if c.isBuiltin(m.Name) {
		for _, name := range m.PartFiles(AllParts) {
			list = append(list, c.Builtin.files[name])
		}
		return list, nil
	}
	dir := filepath.Join(c.Dir, m.Name)
	records, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	before := maps.Clone(records)
	for _, name := range m.PartFiles(AllParts) {
		f := FileState{Name: name}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil {
			f.Path, f.Bytes = path, info.Size()
			f.SHA256, f.Err = records.check(ctx, path, info, m.Files[name])
			f.Zoo = records.zoo(name, m)
			_, _, f.Recorded = records.want(name, m.Files[name])
		} else if v := m.Files[name].Vendor; v != "" && c.Vendor != "" {
			path = filepath.Join(c.Vendor, filepath.FromSlash(v))
			if info, err := os.Stat(path); err == nil {
				f.Path, f.Bytes, f.Vendor, f.Err = path, info.Size(), true, checkKind(path)
			}
		}
		list = append(list, f)
	}
	if !maps.Equal(before, records) {
		c.saveTimes(m.Name, records)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return list, nil
}

// Verify reads every file of a model that is there and compares it with its digest. Files among the
// vendor's resources have none: they come back with the digest they have. The error joins those of
// the files, ErrFile; files that are not there are no error. It ends early with the cause of
// ctx.
func (c *Catalog) Verify(ctx context.Context, name string) ([]FileState, error) {
	m, err := c.manifest(name, "")
	if err != nil {
		return nil, err
	}
	list, err := c.files(ctx, m)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range list {
		f := &list[i]
		if f.Bytes == 0 || f.Err != nil {
			errs = append(errs, f.Err)
			continue
		}
		sum, err := f.hash(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if f.SHA256 != "" && sum != f.SHA256 {
			f.Err = fmt.Errorf("%w: %s has SHA-256 %s, want %s", ErrFile, cmp.Or(f.Path, f.Name), sum, f.SHA256)
			errs = append(errs, f.Err)
		} else {
			f.SHA256 = sum
		}
	}
	return list, errors.Join(errs...)
}

// Remove deletes the folder of a model, with what a pull left unfinished, and returns how many bytes
// that were. What the vendor's applications installed stays. Errors: ErrUnknown,
// ErrNotInstalled, ErrBusy.
func (c *Catalog) Remove(name string) (freed int64, err error) {
	if c.isBuiltin(name) {
		return 0, fmt.Errorf("model %s is part of the program and cannot be removed", name)
	}
	if _, err := c.manifest(name, ""); err != nil {
		return 0, err
	}
	dir := filepath.Join(c.Dir, name)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s", ErrNotInstalled, name)
	}
	if err != nil {
		return 0, err
	}
	unlock, err := c.lock(name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			freed += info.Size()
		}
	}
	return freed, os.RemoveAll(dir)
}
