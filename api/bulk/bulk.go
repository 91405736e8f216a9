// Package bulk indexes many images: it finds them in a [Source], has an [Encoder] make vectors of them, and stores a row for each
// path in a [Sink]. A journal remembers what was found and what is stored, so that a run that was cut short, also by kill -9 or
// a power cut, goes on where it was, and a second run over the same files costs a look at each.
//
// Delivery is at least once everywhere; the key of an image says what its content is and the identity of a row is (key, path),
// so that the sink has each row exactly once.
package bulk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// PrepVersion is part of every key: it changes when the pixels that the model sees of an image change.
const PrepVersion = "p1"

// Item is an image that a source has found.
type Item struct {
	Path     string // how rows name it; never a path on disk that anything is written to
	Size     int64  // bytes; -1: not known before it is read
	Modified time.Time
	Open     func(ctx context.Context) ([]byte, error) // reads it, at most the limit that the source was given; several may be open at once
	Once     bool                                      // Open works only until the source goes on, as in a compressed archive
}

// Source finds images.
type Source interface {
	// Each calls found for every image, one after the other, in the same order each time. It ends with the first error of found.
	// What cannot be read, such as a folder, is told by found with an item whose Open fails.
	Each(ctx context.Context, found func(Item) error) error
	// Name is what the journal knows the source by, the same for the same source in another run.
	Name() string
}

// Match is how well a label or prompt fits.
type Match struct {
	Label       string  `json:"label"`
	Score       float64 `json:"score"`
	Probability float64 `json:"probability"`
	Cosine      float64 `json:"cosine"`
}

// Counter is a source that can say how many images it has without reading them. Count may be called beside Each.
type Counter interface {
	Count(ctx context.Context) (int64, error)
}

// Row is what is stored of a path.
type Row struct {
	Key       string    `json:"key"` // see Key; of what could not be read it begins with 32 zeros
	Path      string    `json:"path"`
	Model     string    `json:"model"`
	Embedding []float32 `json:"embedding,omitempty"`
	Matches   []Match   `json:"classifications,omitempty"`
	Error     string    `json:"error,omitempty"` // why the image has neither
}

// ID tells rows apart.
type ID struct{ Key, Path string }

// Result is what an encoder has made of the image of a key.
type Result struct {
	Key     string
	Vector  []float32 // of unit length, the receiver's; nil with Error
	Matches []Match   // of an encoder that classifies by itself, in place of Vector
	Error   string    // what is wrong with the image, for good
	Again   bool      // with Error: it need not be the image's fault, and the next run tries again
	Stored  func()    // called when the row is stored, so that it need not be told again; may be nil
}

// Encoder makes vectors of images.
type Encoder interface {
	// Model is the model's name, Digest the digest of its image encoder.
	Model() string
	Digest() string
	// Send hands an image over, which is only read from then on. It blocks while there is no room, and fails with what is wrong
	// with the encoder, or when ctx ends. What becomes of the image comes from Results, at least once, or never if it is lost.
	Send(ctx context.Context, key string, image []byte) error
	// Results has what becomes of images, in any order, also of images that a former process has sent. Closed by Close.
	Results() <-chan Result
	// Idle says that nothing is under way: what has no result by then is lost, and to be sent again. It may block for a moment.
	Idle(ctx context.Context) (bool, error)
	Close(ctx context.Context) error
}

// Sink stores rows. Its methods are called one at a time.
type Sink interface {
	// Put stores rows, replacing those with the same key and path. They are durable when it returns nil, and with an error some
	// may be stored.
	Put(ctx context.Context, rows []Row) error
	// Find returns a row of the key, of whatever path.
	Find(ctx context.Context, key string) (Row, bool, error)
	// Each tells key and path of every row.
	Each(ctx context.Context, row func(key, path string) error) error
	// Finish makes the result usable by others when all rows are stored, such as a file with an index at its end.
	Finish(ctx context.Context) error
	Close() error
}

// Appender is a sink to which rows are only appended: what was put twice is there twice, unless it is cut off before.
type Appender interface {
	Sink
	// Mark is where the next row will be, after everything before has become durable.
	Mark() int64
	// Rewind cuts off what was put after Mark returned that.
	Rewind(mark int64) error
}

// Placer is an Appender whose rows have places, which the journal remembers for it, so that a row is found without a search.
type Placer interface {
	Appender
	// Places are those of the rows of the last Put. Valid until the next one.
	Places() []int64
	// At returns the row at a place, or fails where there is none.
	At(place int64) (Row, error)
	// Moved tells the place of every row. It is called after a Finish that has removed rows.
	Moved(ctx context.Context, row func(key string, place int64) error) error
}

// Remover is a sink that can take rows away.
type Remover interface {
	// Remove takes rows away, at the latest with Finish. Those that are not there are no error.
	Remove(ctx context.Context, rows []ID) error
}

// ErrImage says that an image cannot be encoded for good, whoever tries; errors of what encodes wrap it.
var ErrImage = errors.New("not a usable image")

// JobID names the indexing of a source into a sink, 16 hex digits.
func JobID(source, sink string) string {
	sum := sha256.Sum256([]byte(source + "\x00" + sink))
	return hex.EncodeToString(sum[:8])
}

// Key names the content of an image, encoded by a model: the beginning of the hex SHA-256 of its bytes, that of the digest of the
// image encoder (see Short), and the version of preprocessing.
func Key(image []byte, digest string) string {
	sum := sha256.Sum256(image)
	return hex.EncodeToString(sum[:16]) + "." + Short(digest) + "." + PrepVersion
}

// usualPreparation is the clip.Engine.Preparation of an unchanged configuration where libturbojpeg is installed.
const usualPreparation = "crop-exact-turbo"

// Prepared is the digest of an image encoder that gets images prepared so, by clip.Engine.Preparation; "": not known, taken for usual.
// To another preparation belong other vectors, and so another digest: neither keys nor rows of the two mix.
func Prepared(digest, preparation string) string {
	if preparation == "" || preparation == usualPreparation {
		return digest
	}
	return digest + "/" + preparation
}

// Resized is the digest of an encoder that gets images whose shorter side was brought to so many pixels, by that kind of decoder.
func Resized(digest string, side int, decoder string) string {
	return fmt.Sprintf("%s/resized-%d-%s", digest, side, decoder)
}

// Short is 8 hex digits that stand for a digest: its first ones, or those of its SHA-256 where it is no hex number, as that of a
// simulated encoder.
func Short(digest string) string {
	if _, err := hex.DecodeString(digest); err != nil || len(digest) < 8 {
		sum := sha256.Sum256([]byte(digest))
		digest = hex.EncodeToString(sum[:])
	}
	return strings.ToLower(digest[:8])
}
