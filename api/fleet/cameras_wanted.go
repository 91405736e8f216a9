package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	streams "hailoclip/api/stream"
	"hailoclip/api/stream/event"
)

// ErrNoCamera says that the fleet has no camera of that name.
var ErrNoCamera = errors.New("the fleet has no such camera")

// Camera is a stream that the fleet places.
type Camera struct {
	Name        string            `json:"name"`
	Definition  json.RawMessage   `json:"definition"`               // as PUT /v1/streams/{id} takes it
	Unreachable map[string]string `json:"unreachable_at,omitempty"` // why, by node
}

// cameraLimits bound a definition: each node has limits of its own, too.
var cameraLimits = streams.Limits{Prompts: maxCameras, PromptBytes: setPrompt}

// PutCamera adds a camera, or changes it: a definition as PUT /v1/streams/{id} takes it, with a source. It lies with the broker as it
// is, also the password of a source. Errors: sets.Faults, those of the broker.
func (c *Conn) PutCamera(ctx context.Context, camera string, definition []byte) (err error) {
	d, err := streams.Parse(definition, cameraLimits)
	switch {
	case err != nil:
		return err
	case !event.ValidName(camera):
		return fmt.Errorf("%.80q is no name of a camera: 1 to 64 letters, digits, '.', '_' and '-'", camera)
	case d.Source == "":
		return errors.New("the definition has no source: a camera of the fleet is pulled by whichever node has it")
	case len(definition) > cameraBytes:
		return fmt.Errorf("the definition has %d bytes, at most %d", len(definition), cameraBytes)
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	ctx, end := c.ask(ctx, askTime)
	defer end(&err)
	kv, err := c.js.KeyValue(ctx, CameraBucket)
	if err == nil {
		_, err = kv.Put(ctx, wantedKey+setKey(camera), definition)
	}
	return err
}

// RemoveCamera ends a camera. Error: ErrNoCamera, those of the broker.
func (c *Conn) RemoveCamera(ctx context.Context, camera string) (err error) {
	if err := c.ready(ctx); err != nil {
		return err
	}
	ctx, end := c.ask(ctx, askTime)
	defer end(&err)
	kv, err := c.js.KeyValue(ctx, CameraBucket)
	if err != nil {
		return err
	}
	if !event.ValidName(camera) {
		return fmt.Errorf("%w: %.80q", ErrNoCamera, camera)
	}
	entry, err := kv.Get(ctx, wantedKey+setKey(camera))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return fmt.Errorf("%w: %.80q", ErrNoCamera, camera)
	} else if err != nil {
		return err
	}
	return kv.Delete(ctx, wantedKey+setKey(camera), jetstream.LastRevision(entry.Revision()))
}

// Cameras returns those that the fleet has, by name.
func (c *Conn) Cameras(ctx context.Context) (all []Camera, err error) {
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	ctx, end := c.ask(ctx, askTime)
	defer end(&err)
	kv, err := c.js.KeyValue(ctx, CameraBucket)
	if err != nil {
		return nil, err
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Stop() }() // the connection may be gone
	found, unreachable := map[string]Camera{}, map[string]map[string]string{}
	for {
		var e jetstream.KeyValueEntry
		select {
		case e = <-w.Updates():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if e == nil {
			break
		}
		if key, ok := strings.CutPrefix(e.Key(), wantedKey); ok && json.Valid(e.Value()) && event.ValidName(setName(key)) {
			found[setName(key)] = Camera{Name: setName(key), Definition: e.Value()}
		} else if key, ok := strings.CutPrefix(e.Key(), unreachableKey); ok {
			node, camera, _ := strings.Cut(key, ".")
			var why struct{ Error string }
			if camera = setName(camera); json.Unmarshal(e.Value(), &why) != nil {
				continue
			}
			if unreachable[camera] == nil {
				unreachable[camera] = map[string]string{}
			}
			unreachable[camera][node] = why.Error
		}
	}
	all = []Camera{}
	for camera, one := range found {
		one.Unreachable = unreachable[camera]
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Camera) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
