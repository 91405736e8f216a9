// Package onnx encodes images and text on the CPU with ONNX Runtime, which is loaded at run time
// through a binding of its own: no cgo, and the program starts where the library is missing.
//
// Load finds the library, Fetch downloads it, Open makes the hailo.Backend. From there down: a
// Backend has two towers (image, text), a tower is a session and its layout, and a slot is the
// memory of one run. As many runs go on at once as there are slots, each on one thread.
package onnx

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"hailoclip/hailo"
)

// textBatch is how many texts one run takes at most, where the model does not fix it.
const textBatch = 8

// Options says what to encode with.
type Options struct {
	Manifest    hailo.Manifest
	Image       Source   // ONNX encoder of pictures; none makes a backend for text only
	Text        Source   // ONNX encoder of text; the same source as Image for a whole CLIP model
	Tokenizer   Source   // tokenizer.json: part of what the text digest names
	Frames      int      // pictures in the frame pool
	LibraryDirs []string // where Load looks for a fetched library
}

// Backend is CLIP on the CPU. Open makes it; it must be closed.
type Backend struct {
	info   hailo.Info
	model  hailo.Manifest
	frames *hailo.Frames
	colour *normaliser

	image, text *tower     // image is nil in a backend for text only
	slots       chan *slot // the free ones of all
	all         []*slot

	calls  sync.RWMutex // held for reading by calls in flight
	closed atomic.Bool
}

var _ hailo.Backend = (*Backend)(nil)

// Open loads the library and the model, checks that the model fits its manifest, and encodes one
// picture and one text to prove it. It blocks while weights are read and prepared. Errors:
// ErrNoLibrary, or what is wrong with the model.
func Open(c Config, o Options) (*Backend, error) {
	library, err := Load(c.Library, o.LibraryDirs...)
	if err != nil {
		return nil, err
	}
	b := &Backend{model: o.Manifest, colour: newNormaliser(o.Manifest.Mean, o.Manifest.Std)}
	if err := b.open(library, c, o); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Backend) open(library *Library, c Config, o Options) (err error) {
	m, threads := o.Manifest, c.threads()
	b.info = hailo.Info{
		Backend:    "cpu",
		Device:     fmt.Sprintf("ONNX Runtime %s, %d threads", library.Version, threads),
		ImageCalls: threads,
	}
	if b.info.TextDigest, err = textDigest(o); err != nil {
		return err
	}
	if b.text, err = newTower(library, nil, o.Text, outTexts, m); err != nil {
		return fmt.Errorf("text encoder %v: %w", o.Text, err)
	}
	b.info.TextBatch = cmp.Or(b.text.textBatch, textBatch)
	if o.Image.given() {
		var shared *session
		if o.Image.same(o.Text) {
			shared = b.text.session
		}
		if b.image, err = newTower(library, shared, o.Image, outImages, m); err != nil {
			return fmt.Errorf("image encoder %v: %w", o.Image, err)
		}
		b.info.ImageBatch = cmp.Or(b.image.imageBatch, c.batch())
	}
	b.slots = make(chan *slot, threads)
	for range threads {
		s := newSlot(b.info.ImageBatch*3*m.ImageSize*m.ImageSize, b.info.TextBatch*m.ContextLength,
			max(b.info.ImageBatch, b.info.TextBatch)*m.EmbeddingDimension)
		b.all = append(b.all, s)
		b.slots <- s
	}
	b.frames = hailo.NewHeapFrames(o.Frames, m.ImageSize, m.EmbeddingDimension)
	return b.prove()
}

// prove encodes one picture and one text, so that a model which loads but does not work is found
// now and not by the first request. Any real model has a vector for a grey ramp and for padding.
func (b *Backend) prove() error {
	ctx := context.Background()
	if _, err := b.EncodeTexts(ctx, [][]int32{{b.model.Tokens.PadID}}); err != nil {
		return err
	}
	if b.image == nil {
		return nil
	}
	probe, err := hailo.NewHeapFrames(1, b.model.ImageSize, b.model.EmbeddingDimension).Get(ctx)
	if err != nil {
		return err
	}
	for i := range probe.Pixels {
		probe.Pixels[i] = byte(i)
	}
	return b.EncodeImages(ctx, []*hailo.Frame{probe})
}

// Info returns fixed facts; ImageBatch is 0 in a backend for text only.
func (b *Backend) Info() hailo.Info { return b.info }

// Frames returns the pool, in ordinary memory.
func (b *Backend) Frames() *hailo.Frames { return b.frames }

// Status is ready until Close.
func (b *Backend) Status() hailo.Status {
	if b.closed.Load() {
		return hailo.Status{Reason: "the CPU encoder is closed"}
	}
	return hailo.Status{Ready: true}
}

// Close waits for calls in flight and releases the model; the library stays loaded.
func (b *Backend) Close() error {
	b.closed.Store(true)
	b.calls.Lock()
	defer b.calls.Unlock()
	for _, t := range []*tower{b.image, b.text} {
		if t != nil {
			t.close()
		}
	}
	for _, s := range b.all {
		s.pin.Unpin()
	}
	return nil
}

// enter begins a call; leave it with b.calls.RUnlock.
func (b *Backend) enter() error {
	if b.closed.Load() { // before waiting for a Close that waits for others
		return hailo.ErrClosed
	}
	b.calls.RLock()
	if b.closed.Load() {
		b.calls.RUnlock()
		return hailo.ErrClosed
	}
	return nil
}
