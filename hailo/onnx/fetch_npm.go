package onnx

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// npmPackage holds the libraries of all systems; npmBytes is the size of its tarball.
const (
	npmPackage = "onnxruntime-node"
	npmBytes   = 85_987_774
)

// fetchNPM lets npm download the package's tarball, without installing it or running anything of
// it, and takes the library out. npm finds its registry by its own settings.
func fetchNPM(ctx context.Context, o FetchOptions, b build, path string) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(o.Dir, ".setup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	cache := filepath.Join(tmp, "cache") // not the user's: it would keep 86 MB for nothing
	cmd := exec.CommandContext(ctx, npm, "pack", npmPackage+"@"+FetchVersion,
		"--ignore-scripts", "--loglevel=error", "--no-update-notifier", "--cache", cache)
	cmd.Dir = tmp
	cmd.WaitDelay = 5 * time.Second
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := watch(done, cache, o.Progress); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %s", err, npmError(said.String()))
	}
	return unpack(ctx, filepath.Join(tmp, npmPackage+"-"+FetchVersion+".tgz"), path, b.npmLibrary, b.library)
}

// watch reports what npm has downloaded, which it does not tell itself, until it is done.
func watch(done <-chan error, cache string, progress func(done, total int64)) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				progress(npmBytes, npmBytes)
			}
			return err
		case <-tick.C:
			progress(min(treeSize(cache), npmBytes), npmBytes)
		}
	}
}

// treeSize adds up the files below dir; what vanishes meanwhile does not count.
func treeSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// npmError cuts what npm wrote down to the first lines of its error, which say why; after them come
// general advice and the name of a log file that is gone by then.
func npmError(said string) string {
	const most = 3
	lines := strings.Split(strings.TrimSpace(said), "\n")
	var errs []string
	for _, line := range lines {
		text := strings.TrimSpace(line)
		if !strings.HasPrefix(strings.ToLower(text), "npm err") || strings.Contains(text, "complete log of this run") {
			continue // "npm error", "npm ERR!" before npm 10
		}
		if _, after, _ := strings.Cut(text, " "); strings.ContainsRune(after, ' ') { // more than the word "error"
			errs = append(errs, text)
		}
	}
	if errs == nil {
		errs = lines[max(0, len(lines)-most):]
	}
	return strings.Join(errs[:min(len(errs), most)], "; ")
}
