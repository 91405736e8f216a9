// Package compat speaks the interfaces of other systems whose clients ask a CLIP server for vectors: a codec for each, in a file of its
// own. A codec reads a request into an Ask, a list of texts and images with options, and writes the Result that the server has of the
// engine; HTTP is the server's business, too. What codecs share: the readers of JSON bodies (read.go) and of items in any of their
// forms (item.go), and what answers have in common (write.go).
package compat

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"hailoclip/api/rawjson"
)

// Dialect is the interface of one system.
type Dialect struct {
	Name   string // of its setting, compat.NAME
	Routes []Route

	// Fail appends the body of the answer for an error, as JSON. It may change f.Status.
	Fail func(b []byte, f *Failure) []byte
}

// Dialects are all there are. Where two have the same method and path, the first that takes a request answers it.
var Dialects = []*Dialect{
	&openAI, &immich, &frigate, &weaviate, &ollama, &tei, &huggingFace, &cohere, &voyage, &roboflow, &qdrant, &clipAsService,
}

// Route is a path of a dialect. Either Get is set, or Write and one at least of the readers.
type Route struct {
	Method, Path string // the path as package router has it
	Open         bool   // needs no key
	Own          bool   // is on the dialect's own listener alone, not beside the other dialects
	// Always: it is served while the encoder is not available, too. Requests with a body are answered by Service.Upstream then, or
	// refused where there is none.
	Always bool

	// Get answers a request without a body. argument is what the path has in {id}, "" where it has none. The error is a Fault.
	Get func(s *Service, argument string) (Reply, error)

	// The readers, by kind of body; nil: that kind is not taken. Errors are Faults. Texts of the Ask are copies, its images lie in
	// the body.
	JSON func(a *Ask, body *Body) error               // a JSON object
	Form func(a *Ask, name string, data []byte) error // called for each part of multipart/form-data, in their order
	End  func(a *Ask) error                           // called after the last part of a form; nil: nothing is left to do
	File func(a *Ask, file []byte) error              // anything else
	// Takes says whether the JSON is meant for this dialect; nil: it always is.
	Takes func(body *Body) bool

	// Write appends the body of the answer, as JSON. It must not change a and r.
	Write func(b []byte, a *Ask, r *Result) []byte
}

// Ask is what a request asks for: a vector of each item.
type Ask struct {
	Service *Service
	Items   []Item
	Base64  bool // of the vectors in the answer: base64 of float32, little-endian
	Whole   bool // a text that is longer than the model reads is refused, and not cut
	Extra   any  // what a codec's reader leaves for its writer

	// Forward has the request answered by Service.Upstream, as it came.
	Forward bool
}

// Result is what the engine has made of the items.
type Result struct {
	Vectors []Vector // of each item
	ID      string   // of the request
	Took    time.Duration
}

// Vector is what became of an item.
type Vector struct {
	Embedding []float32 // of unit length
	Tokens    int       // of a text, start and end included, as far as the model reads it; 0: of an image
	Format    string    // of an image: "jpeg", "png", "webp", "gif", "bmp" or "tiff"
	Width     int       // of an image in pixels, as it is stored; likewise Height
	Height    int
}

// Tokens is the sum of those of all texts.
func (r *Result) Tokens() (n int) {
	for i := range r.Vectors {
		n += r.Vectors[i].Tokens
	}
	return n
}

// Service is what codecs may say of the service. Immutable.
type Service struct {
	Model         string
	Aliases       []string // other names of the model
	Dimension     int      // numbers of a vector
	ContextLength int      // tokens of a text, start and end included
	ImageSize     int      // pixels on a side
	LogitScale    float64  // factor of cosines before a softmax
	Version       string   // of the program
	Started       time.Time
	MadeUp        bool          // vectors tell nothing, and must not get into an index
	Upstream      bool          // there is another server for what this one does not do
	Unready       func() string // why nothing can be encoded now; "": it can
}

// names are all names of the model, each once, its own first.
func (s *Service) names() (names []string) {
	for _, name := range append([]string{s.Model}, s.Aliases...) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Named says whether name is the model's, or one of its aliases. Empty stands for the model that runs.
func (s *Service) Named(name string) bool {
	return name == "" || name == s.Model || slices.Contains(s.Aliases, name)
}

// noModel is the error for a name that is not the model's.
func (s *Service) noModel(name string) error {
	return &Fault{Kind: ErrModel, Param: "model", Text: fmt.Sprintf("The model %.128q does not exist: this service runs %s", name, s.Model)}
}

// Reply is the answer of Route.Get.
type Reply struct {
	Status int    // 0: 200
	Media  string // "": application/json
	Body   []byte
}

// Failure is what a client is told of an error.
type Failure struct {
	Status    int
	Code      string // of the service's own, such as "invalid_image", see api/errors.go
	Text      string // a sentence
	Param     string // the field that is wrong; "": not known
	RequestID string
}

// What can be wrong with a request, see Fault.
var (
	ErrRequest = errors.New("invalid request")
	ErrModel   = errors.New("no such model") // it is not the one that runs

	ErrUnavailable = errors.New("not available") // nothing is wrong with the request
)

// Fault is an error with a text for the client.
type Fault struct {
	Kind  error // one of the above
	Param string
	Text  string
}

func (f *Fault) Error() string { return f.Text }
func (f *Fault) Unwrap() error { return f.Kind }

// fault makes an ErrRequest about a field.
func fault(param, format string, args ...any) error {
	return &Fault{Kind: ErrRequest, Param: param, Text: fmt.Sprintf(format, args...)}
}

// model checks that the request is for the model that runs.
func (a *Ask) model(raw rawjson.Raw) error {
	if !rawjson.Given(raw) {
		return nil
	}
	name, ok := text(raw)
	if !ok {
		return fault("model", "'model' must be a string")
	}
	return a.named(name)
}

// named checks that name is the model's.
func (a *Ask) named(name string) error {
	if a.Service.Named(name) {
		return nil
	}
	return a.Service.noModel(name)
}
