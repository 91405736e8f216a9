// Package onnx encodes images and text on the CPU with ONNX Runtime, which is loaded at run time
// through a binding of its own: no cgo, and the program starts where the library is missing.
//
// Load finds the library, Fetch downloads it, Open makes the hailo.Backend. From there down: a
// Backend has two towers (image, text), a tower is a session and its layout, and a workspace is
// the memory of one run. As many runs go on at once as there are workspaces, each on one thread.
package onnx

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hailoclip/hailo"
	"hailoclip/hailo/model"
)

// textBatch is how many texts one run takes at most, where the model does not fix it.
const textBatch = 8

// Backend is CLIP on the CPU. Open makes it; it must be closed.
type Backend struct {
	info   hailo.Info
	model  model.Manifest
	frames *hailo.Frames
	colour *normaliser

	image, text *tower // of one file the same; image is nil in a backend for text only
	free        chan *workspace

	calls  hailo.Calls
	counts counts
}

var _ hailo.Backend = (*Backend)(nil)

// Open loads the library and the model's CPU encoders, checks that they fit the manifest, and
// encodes one text and one image to prove it. It blocks while weights are read and prepared.
//
// The backend has frames images in its pool. Where the model has no image encoder for the CPU,
// it is for text only: EncodeImages fails. libraryDirs are where Fetch may have put the library.
// Errors: ErrNoLibrary, or what is wrong with the model.
func Open(ctx context.Context, c Config, m *model.Model, frames int, libraryDirs ...string) (*Backend, error) {
	library, err := Load(c.Library, libraryDirs...)
	if err != nil {
		return nil, err
	}
	e, err := newEncoders(ctx, m)
	if err != nil {
		return nil, err
	}
	return open(library, c, e, frames)
}

// encoders is what Open needs of a model.
type encoders struct {
	manifest    model.Manifest
	image, text source    // of one name: a whole CLIP model, in one session
	digests     [2]string // of the text encoder and of that of images, "" where there is none
}

func newEncoders(ctx context.Context, m *model.Model) (e encoders, err error) {
	if m.CPU == nil || !m.Has(m.CPU.Text) {
		return e, fmt.Errorf("model %s has no text encoder for the CPU", m.Name)
	}
	e.manifest = m.Manifest
	if e.text, err = newSource(m, m.CPU.Text); err != nil {
		return e, err
	}
	if m.CPU.Image == m.CPU.Text {
		e.image = e.text
	} else if m.Has(m.CPU.Image) {
		if e.image, err = newSource(m, m.CPU.Image); err != nil {
			return e, err
		}
	}
	if e.digests[0], err = m.Digest(ctx, textFiles(m.Manifest)...); err == nil && e.image.name != "" {
		e.digests[1], err = m.ImageDigest(ctx, withWeights(m.Manifest, m.CPU.Image)...)
	}
	return e, err
}

func newSource(m *model.Model, name string) (source, error) {
	path, onDisk := m.Path(name)
	if onDisk {
		return source{name: name, path: path}, nil
	}
	data, err := m.ReadFile(name)
	return source{name: name, bytes: data}, err
}

// textFiles lists all that decides the vector of a text: the tokenizer and the files of the encoder.
func textFiles(m model.Manifest) []string {
	return append([]string{m.Tokenizer}, withWeights(m, m.CPU.Text)...)
}

// withWeights lists a file and those that hold its weights, which are called model.onnx_data, model.onnx_data_1 ... or
// model.onnx.data beside model.onnx.
func withWeights(m model.Manifest, file string) []string {
	list := []string{file}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		if rest, ok := strings.CutPrefix(name, file); ok && (strings.HasPrefix(rest, "_data") || rest == ".data") {
			list = append(list, name)
		}
	}
	return list
}

func open(library *Library, c Config, e encoders, frames int) (*Backend, error) {
	b := &Backend{model: e.manifest, colour: newNormaliser(e.manifest.Mean, e.manifest.Std)}
	if err := b.start(library, c, e, frames); err != nil {
		_ = b.Close() // of what is open: nothing can be in flight
		return nil, fmt.Errorf("model %s: %w", e.manifest.Name, err)
	}
	return b, nil
}

func (b *Backend) start(library *Library, c Config, e encoders, frames int) (err error) {
	m, threads := e.manifest, c.threads()
	if b.text, err = newTower(library, e.text, outTexts, m); err != nil {
		return fmt.Errorf("%s: %w", e.text.name, err)
	}
	if e.image.name != "" {
		if e.image.name == e.text.name {
			b.image = b.text
			err = b.image.require(outImages)
		} else {
			b.image, err = newTower(library, e.image, outImages, m)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.image.name, err)
		}
		b.info.ImageCalls = threads
		b.info.ImageBatch = cmp.Or(b.image.imageBatch, c.Batch, defaultBatch)
	}
	b.info.Backend = "cpu"
	b.info.Device = fmt.Sprintf("ONNX Runtime %s, %d threads", library.Version, threads)
	b.info.TextBatch = cmp.Or(b.text.textBatch, textBatch)
	if m.CPU != nil && m.CPU.Alone {
		for _, fixed := range []int{b.text.textBatch, cmp.Or(b.image, b.text).imageBatch} {
			if fixed > 1 {
				return fmt.Errorf("cpu.alone in the manifest, but the file takes %d at once", fixed)
			}
		}
		b.info.ImageBatch, b.info.TextBatch = min(b.info.ImageBatch, 1), 1
	}
	b.info.TextDigest, b.info.ImageDigest = e.digests[0], e.digests[1]
	b.free = make(chan *workspace, threads)
	for range threads {
		b.free <- newWorkspace(b.info.ImageBatch*3*m.ImageSize*m.ImageSize, b.info.TextBatch*m.ContextLength,
			max(b.info.ImageBatch, b.info.TextBatch)*m.EmbeddingDimension)
	}
	b.frames = hailo.NewHeapFrames(frames, m.ImageSize, m.EmbeddingDimension)
	return b.prove()
}

// prove encodes one image and one text, so that a model which loads but does not work is found
// now and not by the first request. Any real model has a vector for a grey ramp and for padding.
func (b *Backend) prove() error {
	ctx := context.Background()
	if _, err := b.EncodeTexts(ctx, [][]int32{{b.model.Tokens.PadID}}); err != nil {
		return err
	}
	if b.image == nil {
		return nil
	}
	probe, err := b.frames.Get(ctx)
	if err != nil {
		return err
	}
	defer probe.Release()
	for i := range probe.Pixels {
		probe.Pixels[i] = byte(i)
	}
	return b.EncodeImages(ctx, []*hailo.Frame{probe})
}

// Info returns fixed facts; ImageBatch and ImageCalls are 0 in a backend for text only.
func (b *Backend) Info() hailo.Info { return b.info }

// Frames returns the pool, in ordinary memory.
func (b *Backend) Frames() *hailo.Frames { return b.frames }

// Status is ready until Close.
func (b *Backend) Status() hailo.Status {
	if b.calls.Closed() {
		return hailo.Status{Why: hailo.Because("the CPU encoder is closed")}
	}
	return hailo.Status{Ready: true}
}

// Close waits for calls in flight and releases the model; the library stays loaded.
func (b *Backend) Close() error {
	b.calls.Close()
	for _, t := range []*tower{b.image, b.text} {
		if t != nil {
			t.close()
		}
	}
	for range len(b.free) {
		(<-b.free).pin.Unpin()
	}
	return nil
}
