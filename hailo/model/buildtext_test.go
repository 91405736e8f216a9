package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hailoclip/hailo/internal/assert"
	"hailoclip/hailo/safefile"
)

// made are edits that leave the token embedding and the projection of fullManifest to BuildText.
var made = []string{`"e.npy": {"url": "https://host/e.npy", "vendor": "npy/e.npy"}`, `"e.npy": {}`, `{"vendor": "npy/p.npy"}`, `{}`,
	`"zoo": "v5.2.0"`, `"zoo": "v5.2.0", "checkpoint": "https://host/model.safetensors"`}

// madeCatalog knows a model of dimension 4 whose text files are made.
func madeCatalog(t testing.TB, edits ...string) *Catalog {
	c := testCatalog(t)
	c.Known = []Manifest{knownFull(t, slices.Concat(edits, made, []string{`"name": "full"`, `"name": "` + Preferred + `"`})...)}
	return c
}

// checkpoint writes a checkpoint of a table of 5 tokens of 2 numbers and a projection to 4 of them, in either layout.
func checkpoint(t testing.TB, openCLIP bool) string {
	t.Helper()
	keys, shape, projection := checkpointLayouts[0], "[4, 2]", npyBytes(1, 5, 2, 6, 3, 7, 4, 8)
	if openCLIP {
		keys, shape, projection = checkpointLayouts[1], "[2, 4]", npyBytes(1, 2, 3, 4, 5, 6, 7, 8)
	}
	header := fmt.Sprintf(`{"%s": {"dtype": "F32", "shape": %s, "data_offsets": [40, 72]}, "%s": {"dtype": "F32", "shape": [5, 2], "data_offsets": [0, 40]}}`,
		keys.projection, shape, keys.table)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	write(t, path, string(tensorsFile(header, append(npyBytes(10, 11, 12, 13, 14, 15, 16, 17, 18, 19), projection...))))
	return path
}

// TestBuildText makes the files from both layouts, for a manifest that wants the projection either way: what the NPU's
// encoder reads projects the same.
func TestBuildText(t *testing.T) {
	for _, openCLIP := range []bool{false, true} {
		for _, transposed := range []bool{false, true} {
			what := fmt.Sprintf("OpenCLIP %t, transposed %t", openCLIP, transposed)
			c := madeCatalog(t, `"zoo": "v5.2.0"`, fmt.Sprintf(`"zoo": "v5.2.0", "projection_transposed": %t`, transposed))
			files := assert.Value(c.BuildText(t.Context(), Preferred, checkpoint(t, openCLIP)))
			for _, f := range files {
				assert.Equal(t, f.SHA256, sumOf(read(c.path(f.Name))), "%s: %s", what, f.Name)
			}
			for name, text := range contents {
				if !c.Known[0].Made(name) {
					write(t, c.path(name), text)
				}
			}
			m, _, err := c.Resolve(t.Context(), Preferred)
			assert.Must(t, err)
			assert.True(t, m.HasNPUText(), "%s: no text on the NPU", what)
			rows, cols, table, err := m.ReadNpy("e.npy")
			assert.True(t, err == nil && rows == 5 && cols == 2 && slices.Equal(table, []float32{10, 11, 12, 13, 14, 15, 16, 17, 18, 19}),
				"%s: table %d x %d %v, %v", what, rows, cols, table, err)
			wantRows, wantCols, want := 2, 4, []float32{1, 2, 3, 4, 5, 6, 7, 8}
			if transposed {
				wantRows, wantCols, want = 4, 2, []float32{1, 5, 2, 6, 3, 7, 4, 8}
			}
			rows, cols, projection, err := m.ReadNpy("p.npy")
			assert.True(t, err == nil && rows == wantRows && cols == wantCols && slices.Equal(projection, want),
				"%s: projection %d x %d %v, %v", what, rows, cols, projection, err)
			assert.True(t, !strings.Contains(c.folder(t), partSuffix), "%s: left over: %s", what, c.folder(t))
			verified := assert.Value(c.Verify(t.Context(), Preferred))
			assert.True(t, !verified[0].Recorded.IsZero() && verified[0].SHA256 == files[0].SHA256, "%s: verified %+v", what, verified[0])
			write(t, c.path("e.npy"), read(c.path("e.npy"))+" ")
			assert.ErrorIs(t, assert.Err(c.Verify(t.Context(), Preferred)), ErrFile, "%s: damaged", what)
			assert.Must(t, assert.Err(c.BuildText(t.Context(), Preferred, checkpoint(t, openCLIP))), assert.Err(c.Verify(t.Context(), Preferred)))
		}
	}
}

func TestBuildTextRefuses(t *testing.T) {
	good := checkpoint(t, false)
	edit := func(old, new string) string {
		path, text := filepath.Join(t.TempDir(), "x.safetensors"), read(good)
		assert.MustTrue(t, len(old) == len(new) && strings.Contains(text, old), "%q cannot become %q", old, new)
		write(t, path, strings.Replace(text, old, new, 1))
		return path
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	assert.Must(t, syscall.Mkfifo(pipe, 0o600))
	known := func(edits ...string) *Catalog { return madeCatalog(t, edits...) }
	for name, c := range map[string]struct {
		catalog    *Catalog
		model      string
		checkpoint string
		is         error
		says       string
	}{
		"unknown model":        {known(), "none", good, ErrUnknown, "none"},
		"built in":             {known(), "demo", good, nil, "no text files that are made"},
		"published files":      {testCatalog(t), Preferred, good, nil, "no text files that are made"},
		"no file":              {known(), Preferred, good + "x", fs.ErrNotExist, "model.safetensorsx"},
		"a pipe":               {known(), Preferred, pipe, safefile.ErrNotRegular, "pipe"},
		"no checkpoint":        {known(), Preferred, checkpointOf(t, "{}"), ErrSafetensors, "no CLIP of Hugging Face or OpenCLIP"},
		"no projection":        {known(), Preferred, edit("text_projection.weight", "text_projection.height"), ErrSafetensors, "there is no text_projection.weight"},
		"another dimension":    {known(`"embedding_dimension": 4`, `"embedding_dimension": 3`), Preferred, good, ErrFile, "projects 2 numbers to 4"},
		"the other way round":  {known(), Preferred, edit("[4, 2]", "[2, 4]"), ErrFile, "projects 4 numbers to 2"},
		"a smaller vocabulary": {known(`"pad_id": 3`, `"pad_id": 5`), Preferred, good, ErrFile, "has 5 tokens, but the padding is token 5"},
		"not a number":         {known(), Preferred, edit(string(npyBytes(19)), "\x00\x00\xc0\x7f"), ErrSafetensors, "row 4, column 1 is NaN"},
	} {
		before := c.catalog.folder(t)
		assert.ErrorSays(t, assert.Err(c.catalog.BuildText(t.Context(), c.model, c.checkpoint)), c.is, c.says, "%s", name)
		assert.True(t, strings.HasPrefix(c.catalog.folder(t), before) && !strings.Contains(c.catalog.folder(t), ".npy"), "%s: left %s", name, c.catalog.folder(t))
	}
	c := known()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	assert.ErrorIs(t, assert.Err(c.BuildText(ctx, Preferred, good)), stop, "cancelled")
	unlock := assert.Value(c.lock(Preferred))
	defer unlock()
	assert.ErrorIs(t, assert.Err(c.BuildText(t.Context(), Preferred, good)), ErrBusy, "locked")
}

// checkpointOf writes a safetensors file without numbers.
func checkpointOf(t testing.TB, header string) string {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	write(t, path, string(tensorsFile(header, nil)))
	return path
}

// TestPullLeavesMadeFiles: a pull brings all but what is made. Then texts are encoded on the CPU, if the model can do
// that; else it says what is to be done.
func TestPullLeavesMadeFiles(t *testing.T) {
	for name, edits := range map[string][]string{
		"with a CPU half":    nil,
		"without a CPU half": {`"cpu": {"image": "v.onnx", "text": "t.onnx"},`, ``, `"v.onnx": {"url": "https://host/onnx/v.onnx"},`, ``, `"t.onnx": {"url": "https://host/onnx/t.onnx"},`, ``},
	} {
		c, from := madeCatalog(t, edits...), t.TempDir()
		for file, text := range contents {
			if file != "e.npy" && file != "p.npy" {
				write(t, filepath.Join(from, file), text)
			}
		}
		how := "hailo-clip models build-text " + Preferred + " CHECKPOINT.safetensors"
		assert.ErrorSays(t, c.resolveError(t, Preferred), ErrNotInstalled, "hailo-clip models pull "+Preferred+"; make e.npy and p.npy with", "%s: nothing there", name)
		assert.Must(t, c.Pull(t.Context(), Preferred, PullOptions{FromDir: from, Which: NPUPart}))
		m, reason, err := c.Resolve(t.Context(), Preferred)
		if edits == nil {
			assert.True(t, err == nil && m.HasNPU() && !m.HasNPUText() && strings.Contains(reason, how), "%s: %q, %v", name, reason, err)
			assert.Equal(t, c.state(t, Preferred).NPU, Complete, "%s", name)
		} else {
			assert.ErrorSays(t, err, ErrNotInstalled, how+", which is https://host/model.safetensors", "%s", name)
			assert.True(t, !strings.Contains(err.Error(), "models pull"), "%s: %v", name, err)
			assert.Equal(t, c.state(t, Preferred).NPU, Partial, "%s", name)
		}
		assert.Must(t, assert.Err(c.BuildText(t.Context(), Preferred, checkpoint(t, false))), c.Pull(t.Context(), Preferred, PullOptions{FromDir: from, Which: NPUPart}))
		m, reason, err = c.Resolve(t.Context(), Preferred)
		assert.True(t, err == nil && m.HasNPUText() && !strings.Contains(reason, how), "%s: %q, %v", name, reason, err)
		// From a folder that has them, they are copied as others are.
		for _, file := range []string{"e.npy", "p.npy"} {
			write(t, filepath.Join(from, file), read(c.path(file)))
		}
		assert.Must(t, assert.Err(c.Remove(Preferred)), c.Pull(t.Context(), Preferred, PullOptions{FromDir: from}))
		assert.True(t, read(c.path("e.npy")) != "" && c.resolveError(t, Preferred) == nil, "%s: not copied", name)
		// One that was damaged is not pulled, but made again.
		assert.Must(t, os.Truncate(c.path("e.npy"), 9))
		assert.ErrorSays(t, c.Pull(t.Context(), Preferred, PullOptions{}), nil, how, "%s: damaged", name)
	}
}
