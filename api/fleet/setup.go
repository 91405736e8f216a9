package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Sizes of what the broker keeps.
const (
	maxMessage  = 1 << 20  // bytes of a message of BulkStream, with its headers
	streamBytes = 2 << 30  // of a large stream, where the broker has room
	leastBytes  = 16 << 20 // a broker that has not even that is of no use
)

// setupAgain is how long Setup trusts what it has seen on this connection.
const setupAgain = 5 * time.Second

// stores are the streams of all that nodes keep at the broker, small ones first, so that they have their room. Their MaxBytes are the
// most; 0: as much as the broker has.
var stores = []jetstream.StreamConfig{
	bucket(JobBucket, 64<<20, jetstream.StreamConfig{Description: "states of jobs", MaxAge: 30 * 24 * time.Hour, MaxMsgSize: maxJob}),
	bucket(SetBucket, 256<<20, jetstream.StreamConfig{Description: "prompt sets", MaxMsgsPerSubject: 8}),
	{ // a bucket that drops the oldest when it is full
		Name: "KV_" + TextBucket, MaxBytes: 64 << 20, Description: "vectors of texts", Subjects: []string{"$KV." + TextBucket + ".>"},
		MaxMsgsPerSubject: 1, AllowDirect: true, MaxMsgSize: maxTextMessage, Duplicates: 2 * time.Minute,
	},
	bucket(CameraBucket, 16<<20, jetstream.StreamConfig{Description: "streams that are wanted"}),
	{
		Name: DeadStream, MaxBytes: 64 << 20, Description: "images that were tried too often", Subjects: []string{deadSubject + ">"},
		MaxAge: 30 * 24 * time.Hour, MaxMsgSize: maxLetter, Duplicates: 2 * time.Minute,
	},
	objects(SetStore, 256<<20, jetstream.StreamConfig{Description: "prompt sets too large for a message"}),
	{
		Name: BulkStream, MaxBytes: streamBytes, Description: "images that wait for a worker", Subjects: []string{bulkSubject + ">"},
		Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxAge: 24 * time.Hour, MaxMsgSize: maxMessage,
		Duplicates: 2 * time.Minute,
	},
	{
		Name: ResultStream, MaxBytes: streamBytes, Description: "what came of images, until it is stored",
		Subjects: []string{resultSubject + ">"}, MaxAge: 7 * 24 * time.Hour, MaxMsgSize: maxMessage, Duplicates: 2 * time.Minute,
	},
	objects(InputStore, streamBytes, jetstream.StreamConfig{Description: "images too large for a message", MaxAge: 24 * time.Hour}),
	objects(ModelStore, 0, jetstream.StreamConfig{Description: "model files"}),
}

// bucket is a bucket of keys and values as package jetstream knows them, but that no message can be told to empty.
func bucket(name string, bytes int64, c jetstream.StreamConfig) jetstream.StreamConfig {
	c.Name, c.MaxBytes, c.Subjects, c.Discard, c.Duplicates = "KV_"+name, bytes, []string{"$KV." + name + ".>"}, jetstream.DiscardNew, 2*time.Minute
	c.AllowDirect, c.DenyDelete, c.MaxMsgsPerSubject = true, true, max(c.MaxMsgsPerSubject, 1)
	return c
}

// objects is an object store, as package jetstream makes it.
func objects(name string, bytes int64, c jetstream.StreamConfig) jetstream.StreamConfig {
	c.Name, c.MaxBytes, c.Subjects, c.Discard = "OBJ_"+name, bytes, []string{"$O." + name + ".C.>", "$O." + name + ".M.>"}, jetstream.DiscardNew
	c.AllowRollup, c.AllowDirect = true, true
	return c
}

// Setup makes the streams, buckets and object stores that the broker does not have. Those that are there stay as they are,
// whatever an operator has changed. It asks the broker once a connection, and again when a few seconds have passed, so that
// every task may begin with it. Three brokers keep three copies of what is made. Errors: those of the broker, and of ctx; permanent ones
// where it refuses, or has a stream of such a name that is another one.
func (c *Conn) Setup(ctx context.Context) (err error) {
	select {
	case c.setting <- struct{}{}:
		defer func() { <-c.setting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, end := c.ask(ctx, 0)
	defer end(&err)
	connection := c.connections.Load()
	if c.setUp.connection == connection && time.Since(c.setUp.at) < setupAgain {
		return nil
	}
	room := int64(streamBytes) // for a large one: three brokers need a moment to know what they have promised
	for _, s := range stores {
		large := s.MaxBytes == streamBytes
		if large {
			s.MaxBytes = room
		}
		has, err := ensure(ctx, c.js, s, large)
		if err = c.verdict(err, s.Name); err != nil {
			return fmt.Errorf("fleet: the broker's %s: %w", s.Name, err)
		}
		if large && has > 0 && has < streamBytes {
			room = max(has/2, leastBytes)
		}
	}
	c.setUp.connection, c.setUp.at = connection, time.Now()
	return nil
}

// ensure makes a stream that is missing: with three copies where there are brokers for them, and where there is little room with a part
// of it, since others want some, too. Of the size of a small one nodes cannot change anything later. It returns the bytes that it has.
func ensure(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, large bool) (bytes int64, err error) {
	has, err := find(ctx, js, want)
	switch {
	case err == nil && has.Metadata[metaGrows] != "":
		return grow(ctx, js, has, want.MaxBytes)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return has.MaxBytes, err
	}
	less := int64(4)
	if large {
		less = 2
	}
	want.Replicas, want.Storage = 3, jetstream.FileStorage
	if large {
		small := want
		small.MaxBytes, small.Metadata = leastBytes, map[string]string{metaGrows: "true"}
		if _, err := js.CreateStream(ctx, small); err == nil {
			return grow(ctx, js, small, want.MaxBytes)
		} else if !is(err, codeNoReplicas) && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return 0, err
		}
		want.MaxBytes *= less // of which it keeps a part: the others have as much, at least
	}
	for {
		_, err := js.CreateStream(ctx, want)
		divides := want.MaxBytes/less >= leastBytes
		switch {
		case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse): // another node was faster
			has, err := find(ctx, js, want)
			return has.MaxBytes, err
		case want.Replicas > 1 && is(err, codeNoReplicas): // it stands alone
			want.Replicas = 1
		case divides && (is(err, codeNoRoom, codeNoRoomAccount, codeNoResources) ||
			is(err, codeNoPeers) && strings.Contains(err.Error(), "storage")): // else not all three are there yet
			want.MaxBytes /= less
		case err == nil && large && divides:
			want.MaxBytes /= less
			_, err = js.UpdateStream(ctx, want)
			return want.MaxBytes, err
		default:
			return want.MaxBytes, err
		}
	}
}

// grow has a stream with three copies take more, up to most, but not all the room that there is. A cluster finds a place by what its
// brokers had left some seconds ago, and would give more than that, after which no stream can be made smaller; at what grows it looks closely.
// Until it has its size metaGrows stays with it, so that others go on where a node is lost meanwhile.
func grow(ctx context.Context, js jetstream.JetStream, c jetstream.StreamConfig, most int64) (bytes int64, err error) {
	for c.MaxBytes < most {
		has := c.MaxBytes
		c.MaxBytes = min(2*has, most)
		if _, err := js.UpdateStream(ctx, c); is(err, codeNoRoom, codeNoRoomAccount, codeNoResources, codeNoPeers) {
			c.MaxBytes = max(has/2, leastBytes)
			break
		} else if err != nil {
			return has, err
		}
	}
	c.Metadata = nil
	_, err = js.UpdateStream(ctx, c)
	return c.MaxBytes, err
}

// metaGrows is in the metadata of a stream that has not been given its size yet.
const metaGrows = "clip-grows"

// find looks for a stream, and whether it does what it should. It returns what it is; MaxBytes -1: any number.
func find(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (has jetstream.StreamConfig, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime) // a cluster that is choosing a leader gives no answer
	defer cancel()
	stream, err := js.Stream(ctx, want.Name)
	if err != nil {
		return has, err
	}
	has = stream.CachedInfo().Config
	other := ""
	for _, subject := range want.Subjects {
		if !slices.Contains(has.Subjects, subject) {
			other = fmt.Sprintf("it does not take %s, but %.200q", subject, has.Subjects)
		}
	}
	switch {
	case other != "":
	case has.Retention != want.Retention:
		other = fmt.Sprintf("its retention is %s, not %s", has.Retention, want.Retention)
	case has.Sealed:
		other = "it is sealed"
	default:
		return has, nil
	}
	return has, &permanentError{errors.New("the stream is not one of a fleet: " + other), "remove it at the broker, and nodes make it anew"}
}

// Codes of the broker's errors, of which jetstream has no names.
const (
	codeNoPeers       = 10005 // too few brokers, or none with the room
	codeNoRoomAccount = 10002 // resource limits exceeded for account
	codeNoResources   = 10023 // insufficient resources
	codeNoRoom        = 10047 // insufficient storage resources available
	codeNoReplicas    = 10074 // replicas > 1 not supported in non-clustered mode
)

// is says that err is the broker's, with one of the codes.
func is(err error, codes ...jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	var js jetstream.JetStreamError
	if errors.As(err, &js) && js.APIError() != nil {
		api = js.APIError()
	} else if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode == code {
			return true
		}
	}
	return false
}

// setUpAlways is the task that makes everything again when the broker came back without it.
func (n *Node) setUpAlways(ctx context.Context) error {
	for {
		if err := n.Setup(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.reconnected:
		}
	}
}
