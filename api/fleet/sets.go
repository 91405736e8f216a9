package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"hailoclip/cache/sets"
	"hailoclip/stages/clip"
)

// Bounds of prompt sets that are shared. A set that does not fit into a message lies in SetStore, and its message says where.
const (
	setInline = 256 << 10 // bytes of a set in a message
	setBytes  = 128 << 20 // bytes of a set
	setPrompt = 65536     // bytes of a prompt: the bound of server.max_prompt_bytes
)

// setStore is clip.SharedSets on the broker.
type setStore struct {
	conn *Conn

	heard, given, conflicts atomic.Uint64 // changes by all nodes and by this one; those that came second
}

// setEntry is what the bucket has of a set.
type setEntry struct {
	*sets.Record
	Object string `json:"object,omitempty"` // hex SHA-256: name of the Record in SetStore; "": it is here
	Bytes  int64  `json:"bytes,omitempty"`  // of that object
}

// setKey is the name of a set as a key: keys cannot have two points in a row, or one at the end.
func setKey(name string) string     { return strings.ReplaceAll(name, ".", "=") }
func setName(key string) string     { return strings.ReplaceAll(key, "=", ".") }
func setSubject(name string) string { return "$KV." + SetBucket + "." + setKey(name) }

// begin bounds a call, see Conn.ask.
func (s *setStore) begin(ctx context.Context) (asking context.Context, end func(*error), err error) {
	ctx, end = s.conn.ask(ctx, askTime)
	return ctx, end, s.conn.Setup(ctx)
}

// Get implements clip.SharedSets. It reads the stream of the bucket, which has the revisions of deletions, too.
func (s *setStore) Get(ctx context.Context, name string) (r *sets.Record, revision uint64, err error) {
	ctx, end, err := s.begin(ctx)
	defer end(&err)
	if err != nil {
		return nil, 0, err
	}
	stream, err := s.conn.js.Stream(ctx, "KV_"+SetBucket)
	if err != nil {
		return nil, 0, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, setSubject(name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	} else if err != nil {
		return nil, 0, err
	}
	if m.Header.Get("KV-Operation") != "" || m.Header.Get(jetstream.MarkerReasonHeader) != "" { // deleted or purged
		return nil, m.Sequence, nil
	}
	r, err = s.parse(ctx, name, m.Data)
	if err != nil {
		return nil, 0, fmt.Errorf("the prompt set %s of the fleet cannot be used: %w", name, err)
	}
	return r, m.Sequence, nil
}

// SharedSet returns the definition of a prompt set that the fleet shares, for who is no node of it; ok is false where it shares none of
// that name. It connects for this alone, which takes some seconds at most. Errors: ErrNoBroker, those of the broker, or that the
// set cannot be used.
func SharedSet(ctx context.Context, cfg Config, name string, log *slog.Logger) (d sets.Definition, ok bool, err error) {
	if !sets.ValidName(name) {
		return d, false, nil
	}
	conn, err := Dial(cfg, log)
	if err != nil {
		return d, false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	if err := conn.Await(ctx); err != nil {
		return d, false, err
	}
	r, _, err := (&setStore{conn: conn}).Get(ctx, name)
	if err != nil || r == nil {
		return d, false, err
	}
	return r.Definition, true, nil
}

// parse reads what the bucket has of a set, which anybody may have written.
func (s *setStore) parse(ctx context.Context, name string, text []byte) (*sets.Record, error) {
	var e setEntry
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, err
	}
	if e.Object != "" {
		text, err := s.object(ctx, e.Object, e.Bytes)
		if err != nil {
			return nil, err
		}
		e.Record = nil
		if err := json.Unmarshal(text, &e.Record); err != nil {
			return nil, err
		}
	}
	r := e.Record
	switch {
	case r == nil || r.Name != name || !sets.ValidName(name):
		return nil, errors.New("it is none, or another one")
	case r.Definition.HasImages():
		return nil, errors.New("it has images that are no examples")
	}
	r.Definition, r.Shared = r.Definition.Normalized(), true
	for _, o := range r.Definition.Owners() {
		for _, example := range *o.Examples {
			if example.Vector == nil {
				return nil, fmt.Errorf("%s has an example without a vector", o.Where)
			}
		}
	}
	return r, r.Definition.Validate(sets.Limits{PromptBytes: setPrompt})
}

// object reads a set that is too large for a message.
func (s *setStore) object(ctx context.Context, digest string, size int64) ([]byte, error) {
	if size < 1 || size > setBytes {
		return nil, fmt.Errorf("%d bytes are out of bounds: 1 to %d", size, int64(setBytes))
	}
	objects, err := s.conn.js.ObjectStore(ctx, SetStore)
	if err != nil {
		return nil, err
	}
	text, err := readObject(ctx, objects, digest, size)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("object %.64s is another one", digest)
	}
	return text, nil
}

// Put implements clip.SharedSets.
func (s *setStore) Put(ctx context.Context, r sets.Record, revision uint64) (err error) {
	text, err := json.Marshal(r)
	switch {
	case err != nil:
		return err
	case len(text) > setBytes:
		return fmt.Errorf("%w: it has %d bytes, and is shared with at most %d; give it fewer examples", clip.ErrSetsFull, len(text), int64(setBytes))
	}
	ctx, end, err := s.begin(ctx)
	defer end(&err)
	if err != nil {
		return err
	}
	kv, err := s.conn.js.KeyValue(ctx, SetBucket)
	if err != nil {
		return err
	}
	former := s.objectOf(ctx, kv, r.Name)
	if len(text) > setInline {
		if text, err = s.putObject(ctx, text); err != nil {
			return err
		}
	}
	if _, err = kv.Update(ctx, setKey(r.Name), text, revision); err == nil { // 0: it must not have been there ever
		s.dropObject(ctx, former, text)
	}
	return s.changed(err)
}

// putObject stores a set that is too large for a message, and returns the entry that says where.
func (s *setStore) putObject(ctx context.Context, text []byte) ([]byte, error) {
	objects, err := s.conn.js.ObjectStore(ctx, SetStore)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	if info, err := objects.GetInfo(ctx, digest); err != nil || info.Size != uint64(len(text)) {
		if _, err := objects.PutBytes(ctx, digest, text); err != nil {
			return nil, err
		}
	}
	return json.Marshal(setEntry{Object: digest, Bytes: int64(len(text))})
}

// objectOf is the object of the present version of a set, "" where it has none.
func (s *setStore) objectOf(ctx context.Context, kv jetstream.KeyValue, name string) string {
	var e setEntry
	if entry, err := kv.Get(ctx, setKey(name)); err != nil || json.Unmarshal(entry.Value(), &e) != nil {
		return ""
	}
	return e.Object
}

// dropObject removes the object of a version that another one has replaced. One that stays takes room, and nothing else.
func (s *setStore) dropObject(ctx context.Context, former string, entry []byte) {
	if former == "" || strings.Contains(string(entry), former) {
		return
	}
	if objects, err := s.conn.js.ObjectStore(ctx, SetStore); err == nil {
		_ = objects.Delete(ctx, former)
	}
}

// Delete implements clip.SharedSets.
func (s *setStore) Delete(ctx context.Context, name string, revision uint64) (err error) {
	ctx, end, err := s.begin(ctx)
	defer end(&err)
	if err != nil {
		return err
	}
	kv, err := s.conn.js.KeyValue(ctx, SetBucket)
	if err != nil {
		return err
	}
	former := s.objectOf(ctx, kv, name)
	if err = kv.Delete(ctx, setKey(name), jetstream.LastRevision(revision)); err == nil {
		s.dropObject(ctx, former, nil)
	}
	return s.changed(err)
}

// changed counts a change, and gives its error the meaning that it has in package clip.
func (s *setStore) changed(err error) error {
	switch {
	case err == nil:
		s.given.Add(1)
	case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		s.conflicts.Add(1)
		return fmt.Errorf("%w: %w", clip.ErrRevision, err)
	}
	return err
}
