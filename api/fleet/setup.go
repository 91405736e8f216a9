package fleet

import (
	"context"
	"errors"
	"fmt"
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

// store is one thing that the broker keeps: a stream, a bucket of keys and values or an object store.
type store struct {
	name  string
	bytes int64 // at most; halved until the broker has room; 0: as much as the broker has
	find  func(ctx context.Context, js jetstream.JetStream, name string) error
	make  func(ctx context.Context, js jetstream.JetStream, s store, replicas int) error
}

// stores are all that nodes need, small ones first, so that they have their room.
var stores = []store{
	bucket(JobBucket, 64<<20, jetstream.KeyValueConfig{Description: "states of jobs", TTL: 30 * 24 * time.Hour}),
	bucket(SetBucket, 256<<20, jetstream.KeyValueConfig{Description: "prompt sets", History: 8}),
	stream("KV_"+TextBucket, 64<<20, jetstream.StreamConfig{ // a bucket that drops the oldest when it is full
		Description: "vectors of texts", Subjects: []string{"$KV." + TextBucket + ".>"}, MaxMsgsPerSubject: 1, AllowDirect: true,
		Discard: jetstream.DiscardOld, MaxMsgSize: maxTextMessage, Duplicates: 2 * time.Minute,
	}),
	bucket(CameraBucket, 16<<20, jetstream.KeyValueConfig{Description: "streams that are wanted"}),
	stream(DeadStream, 64<<20, jetstream.StreamConfig{
		Description: "images that were tried too often", Subjects: []string{deadSubject + ">"},
		MaxAge: 30 * 24 * time.Hour, MaxMsgSize: maxMessage, Duplicates: 2 * time.Minute,
	}),
	stream(BulkStream, streamBytes, jetstream.StreamConfig{
		Description: "images that wait for a worker", Subjects: []string{bulkSubject + ">"}, Retention: jetstream.WorkQueuePolicy,
		Discard: jetstream.DiscardNew, MaxAge: 24 * time.Hour, MaxMsgSize: maxMessage, Duplicates: 2 * time.Minute,
	}),
	stream(ResultStream, streamBytes, jetstream.StreamConfig{
		Description: "what came of images, until it is stored", Subjects: []string{resultSubject + ">"},
		MaxAge: 7 * 24 * time.Hour, MaxMsgSize: maxMessage, Duplicates: 2 * time.Minute,
	}),
	objects(InputStore, streamBytes, jetstream.ObjectStoreConfig{Description: "images too large for a message", TTL: 24 * time.Hour}),
	objects(SetStore, 256<<20, jetstream.ObjectStoreConfig{Description: "prompt sets too large for a message"}),
	objects(ModelStore, 0, jetstream.ObjectStoreConfig{Description: "model files"}),
}

func stream(name string, bytes int64, c jetstream.StreamConfig) store {
	return store{name, bytes, func(ctx context.Context, js jetstream.JetStream, name string) error {
		_, err := js.Stream(ctx, name)
		return err
	}, func(ctx context.Context, js jetstream.JetStream, s store, replicas int) error {
		c := c
		c.Name, c.MaxBytes, c.Replicas, c.Storage = s.name, s.bytes, replicas, jetstream.FileStorage
		_, err := js.CreateOrUpdateStream(ctx, c)
		return err
	}}
}

func bucket(name string, bytes int64, c jetstream.KeyValueConfig) store {
	return store{name, bytes, func(ctx context.Context, js jetstream.JetStream, name string) error {
		_, err := js.KeyValue(ctx, name)
		return err
	}, func(ctx context.Context, js jetstream.JetStream, s store, replicas int) error {
		c := c
		c.Bucket, c.MaxBytes, c.Replicas, c.Storage = s.name, s.bytes, replicas, jetstream.FileStorage
		_, err := js.CreateOrUpdateKeyValue(ctx, c)
		return err
	}}
}

func objects(name string, bytes int64, c jetstream.ObjectStoreConfig) store {
	return store{name, bytes, func(ctx context.Context, js jetstream.JetStream, name string) error {
		_, err := js.ObjectStore(ctx, name)
		return err
	}, func(ctx context.Context, js jetstream.JetStream, s store, replicas int) error {
		c := c
		c.Bucket, c.MaxBytes, c.Replicas, c.Storage = s.name, s.bytes, replicas, jetstream.FileStorage
		_, err := js.CreateOrUpdateObjectStore(ctx, c)
		return err
	}}
}

// Setup makes the streams, buckets and object stores that the broker does not have. Those that are there stay as they are,
// whatever an operator has changed. It asks the broker once a connection, and again when a few seconds have passed, so that
// every task may begin with it. Three brokers keep three copies of what is made. Errors: those of the broker, and of ctx.
func (c *Conn) Setup(ctx context.Context) error {
	select {
	case c.setting <- struct{}{}:
		defer func() { <-c.setting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	connection := c.connections.Load()
	if c.setUp.connection == connection && time.Since(c.setUp.at) < setupAgain {
		return nil
	}
	for _, s := range stores {
		if err := s.ensure(ctx, c.js); err != nil {
			return fmt.Errorf("fleet: the broker's %s: %w", s.name, err)
		}
	}
	c.setUp.connection, c.setUp.at = connection, time.Now()
	return nil
}

// ensure makes what is missing: with three copies where there are brokers for them, and where there is little room with half of
// it, since others want some, too.
func (s store) ensure(ctx context.Context, js jetstream.JetStream) error {
	if err := s.look(ctx, js); !missing(err) {
		return err
	}
	small := s
	small.bytes = min(s.bytes, leastBytes)
	switch err := small.create(ctx, js, 3); {
	case err == nil:
		return s.grow(ctx, js, small.bytes)
	case is(err, codeNoReplicas):
		return s.alone(ctx, js)
	case is(err, codeNoPeers):
		return fmt.Errorf("%w: in a cluster three brokers must be there, with room", err)
	default:
		return err
	}
}

// alone makes it with one copy.
func (s store) alone(ctx context.Context, js jetstream.JetStream) error {
	for full := s.bytes; ; s.bytes /= 2 {
		switch err := s.create(ctx, js, 1); {
		case s.bytes/2 >= leastBytes && tooLarge(err):
		case err == nil && s.bytes < full && s.bytes/2 >= leastBytes:
			s.bytes /= 2
			return s.create(ctx, js, 1)
		default:
			return err
		}
	}
}

// grow has one with three copies, which has that many bytes, take more. A cluster finds a place by what the brokers had left some seconds
// ago, and would give more than there is, after which nothing can be made smaller; it looks closely at what grows.
func (s store) grow(ctx context.Context, js jetstream.JetStream, bytes int64) error {
	next := s
	for bytes < s.bytes {
		next.bytes = min(2*bytes, s.bytes)
		if err := next.create(ctx, js, 3); tooLarge(err) {
			break
		} else if err != nil {
			return err
		}
		bytes = next.bytes
	}
	if bytes == s.bytes || bytes/2 < leastBytes {
		return nil
	}
	next.bytes = bytes / 2
	return next.create(ctx, js, 3)
}

// look finds it. Like create it waits for one answer for a few seconds: a cluster that is choosing a leader gives none.
func (s store) look(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	return s.find(ctx, js, s.name)
}

// create makes it, or changes its size.
func (s store) create(ctx context.Context, js jetstream.JetStream, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	return s.make(ctx, js, s, replicas)
}

// tooLarge says that the broker has no room for so much.
func tooLarge(err error) bool {
	return is(err, codeNoRoom, codeNoRoomAccount, codeNoResources, codeNoPeers)
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

// missing says that what was looked for is not there.
func missing(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound)
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
