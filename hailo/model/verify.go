package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Verify reads every file of a model that is there and compares it with its digest. Files among the
// vendor's resources have none: they come back with the digest they have. The error joins those of
// the files, ErrFile; files that are not there are no error. It ends early with the cause of
// ctx.
func (s *Catalog) Verify(ctx context.Context, name string) ([]FileState, error) {
	if s.Builtin != nil && name == s.Builtin.Name {
		return verifyEmbedded(ctx, s.Builtin)
	}
	m, err := s.manifest(name, "")
	if err != nil {
		return nil, err
	}
	files, err := s.files(ctx, m)
	if err != nil {
		return nil, err
	}
	recs, err := readRecords(filepath.Join(s.Dir, name))
	if err != nil {
		return nil, err
	}
	var errs []error
	for i := range files {
		f := &files[i]
		if f.Path == "" || f.Err != nil {
			errs = append(errs, f.Err)
			continue
		}
		sum, err := hashFile(ctx, f.Path)
		if err != nil {
			return nil, err
		}
		if _, want := recs.want(f.Name, m.Files[f.Name]); !f.Vendor && want != "" && sum != want {
			f.Err = fmt.Errorf("%w: %s has SHA-256 %s, want %s", ErrFile, f.Path, sum, want)
			errs = append(errs, f.Err)
		} else {
			f.SHA256 = sum
		}
	}
	return files, errors.Join(errs...)
}

func verifyEmbedded(ctx context.Context, m *Model) ([]FileState, error) {
	var list []FileState
	var errs []error
	unverified := &Model{Manifest: m.Manifest, files: map[string]modelFile{}, embedded: m.embedded}
	for _, name := range m.PartFiles(AllParts) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		unverified.files[name] = modelFile{}
		sum, err := unverified.FileSHA256(name)
		if err != nil {
			return nil, err
		}
		f := FileState{Name: name, Bytes: m.Files[name].Bytes, SHA256: sum}
		if want := m.Files[name].SHA256; want != "" && sum != want {
			f.Err = fmt.Errorf("%w: %s has SHA-256 %s, want %s", ErrFile, name, sum, want)
			errs = append(errs, f.Err)
		}
		list = append(list, f)
	}
	return list, errors.Join(errs...)
}

// Remove deletes the folder of a model, with what a pull left unfinished, and returns how many bytes
// that were. What the vendor's applications installed stays. Errors: ErrUnknown,
// ErrNotInstalled, ErrBusy.
func (s *Catalog) Remove(name string) (freed int64, err error) {
	if s.Builtin != nil && name == s.Builtin.Name {
		return 0, fmt.Errorf("model %s is part of the program and cannot be removed", name)
	}
	if _, err := s.manifest(name, ""); err != nil {
		return 0, err
	}
	dir := filepath.Join(s.Dir, name)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s", ErrNotInstalled, name)
	}
	if err != nil {
		return 0, err
	}
	unlock, err := s.lock(name)
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
