package onnx

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"hailoclip/hailo/internal/assert"
)

func TestLoad(t *testing.T) {
	path := native(t)
	first := assert.Value(Load(path))
	assert.True(t, first.Path == path && checkVersion(first.Version) == nil, "loaded %s, version %q", first.Path, first.Version)
	assert.Equal(t, assert.Value(Load(path)), first, "loaded twice")
	// Found in a cache folder, by the name that Fetch gives it.
	dir := t.TempDir()
	name := LibraryFile(dir, runtime.GOARCH)
	assert.Must(t, os.Symlink(path, name))
	found, err := Load("", filepath.Join(dir, "no such folder"), dir)
	assert.True(t, err == nil && found.Path == name, "in a cache folder: %v %v", found, err)
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	text, cut, cutSections := filepath.Join(dir, "text.so"), filepath.Join(dir, "cut.so"), filepath.Join(dir, "cut_sections.so")
	program := assert.Value(os.ReadFile("/proc/self/exe"))
	// Cut short, with the list of sections at its end (as after a full disk) and without one, which
	// leaves the segments alone to tell.
	half := bytes.Clone(program[:len(program)/2])
	clear(half[40:48]) // e_shoff
	clear(half[58:64]) // e_shentsize, e_shnum, e_shstrndx
	for file, content := range map[string][]byte{text: []byte("no library"), cut: half, cutSections: program[:len(program)/2]} {
		assert.Must(t, os.WriteFile(file, content, 0o600))
	}
	for _, tt := range []struct{ name, library, want string }{
		{"cut short", cut, "cut.so: cut short: it has "},
		{"cut short with sections", cutSections, "cut_sections.so: not a library, or cut short"},
		{"configured", text, "leave it empty"},
		{"missing", filepath.Join(dir, "none.so"), "none.so: no such file"},
		{"folder", dir, dir + ": not a file"},
		{"text", text, "text.so: "},
		{"another library", "libm.so.6", "libm.so.6: not ONNX Runtime"},
		{"not in the system", "libnone-at-all.so.1", "libnone-at-all.so.1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(tt.library, dir)
			for _, words := range []string{"cpu.library is ", tt.want, `"hailo-clip setup"`} {
				assert.ErrorSays(t, err, ErrNoLibrary, words)
			}
		})
	}
}

func TestCandidates(t *testing.T) {
	assert.Diff(t, []string{"/opt/ort.so"}, candidates("/opt/ort.so", []string{"/cache"}), "a configured path is the only one")
	beside := filepath.Dir(assert.Value(os.Executable()))
	want := []string{
		beside + "/libonnxruntime.so.1", beside + "/libonnxruntime.so",
		LibraryFile("/state", runtime.GOARCH), LibraryFile("/cache", runtime.GOARCH),
		"libonnxruntime.so.1", "libonnxruntime.so",
	}
	assert.Diff(t, want, candidates("", []string{"/state", "", "/cache"}))
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"1.24.3": true, "1.17.0": true, "1.100.0": true, "2.0.0": true,
		"1.16.3": false, "0.99.0": false, "": false, "rel": false,
	} {
		err := checkVersion(version)
		assert.True(t, (err == nil) == ok, "%q: %v", version, err)
	}
}
