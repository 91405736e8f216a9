// Package stages turns an image into matches and an embedding, in four stages of a pipeline: decode the compressed
// image, resize it straight into a frame of the backend, encode frames in batches, and score the embedding
// against labels.
package stages

import (
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
)

// Request is an image and what to do with it.
type Request struct {
	Image     []byte        // compressed, or as Raw says
	Raw       decode.Raw    // the zero value: the image is compressed
	Labels    *Labels       // what it is compared with; nil: nothing, and there are no matches
	Scoring   Scoring       // how matches are made of the comparison
	Logits    bool          // the result has the logits of all labels, too
	Embedding bool          // the result has the embedding of the image, too
	Thumbnail bool          // the result has a small JPEG of the image, too
	Lane      pipeline.Lane // where it enters

	// Regions are parts of the image that are encoded and compared each by itself; none: the whole image, with Labels and Scoring.
	// The image is decoded once. At most MaxRegions, and at most as many as the backend has frames. Immutable, as Labels are.
	Regions []Region

	// Seen, if not nil, is shown the decoded image, upright, before it is resized; it must not keep or change it. If it returns
	// true the image is neither resized nor encoded, and Result.Skipped is set. It runs on a worker, once at most: it must not
	// block, and when Do has returned an error it may still run. A panic of it is the request's error.
	Seen func(Pixels) (skip bool)

	// Into, if not nil, lends the memory of its slices, those of its Regions too, to the Result of Do, so that this allocates
	// nothing: it is that of an earlier request which nobody looks at any more. It is read by the goroutine that calls Do, when there
	// is a result. nil: the memory is new.
	Into *Result

	// Release is called exactly once for every request given to Do, whatever Do returns, when nothing in the line
	// reads the memory of Image and Labels any more: after an error that may be later than Do returns. It
	// may run on a worker: it must not block. May be nil.
	Release func()
}

// MaxRegions is how many regions a request may have.
const MaxRegions = 8

// Region is a part of the image, in parts of its width and height after its orientation is applied: 0 <= X < X+W <= 1. Pixels.Crop
// says which pixels these are. What comes of it is what would come of an image that has those pixels and no others.
type Region struct {
	X, Y, W, H float64
	Labels     *Labels // nil: those of the request
	Scoring    Scoring // of Labels; not looked at if those are nil
}

// Pixels is a decoded image or a part of one: rows from the top, RGB, 8 bit, Stride bytes from one to the next. Pix ends with the
// last pixel or after it.
type Pixels struct {
	Pix                   []byte
	Width, Height, Stride int
}

// Scoring says how cosine similarities become matches.
type Scoring struct {
	Activation  Activation // how logits become probabilities, and what the score is
	LogitScale  float64    // factor of the cosines
	LogitBias   float64    // added to the product, with Sigmoid only
	Temperature float64    // above 0: logits are divided by it; 0: by 1
	TopK        int        // at most this many matches
	Cut         bool       // leave out the matches whose score is below Threshold
	Threshold   float64

	// What the best label must have for the image to match; nil: anything will do. MinMargin is how much larger its
	// probability must be than the next one's, negative labels included; with Pair, than that of what stands against it, too.
	MinCosine, MinMargin *float64
}

// Result is what became of a request.
type Result struct {
	Matches   []Match   // by falling score, equal scores by falling cosine, then in the order of the labels
	Reason    Reason    // why none fits; "": the best does. Matches are the same
	Logits    []float64 // of each label, Scoring.Temperature not applied; nil unless asked for
	Embedding []float32 // unit length; nil unless asked for
	Thumbnail []byte    // JPEG, 96 pixels on the longer side; nil unless asked for
	Times     [4]pipeline.StageTime

	Regions []RegionResult // one for each of Request.Regions; the fields above are empty then, but for Thumbnail
	Skipped bool           // Request.Seen said so: there is nothing else
}

// RegionResult is what became of a region; see Result.
type RegionResult struct {
	Matches   []Match
	Reason    Reason
	Logits    []float64
	Embedding []float32
}

// Match is a label that may fit the image.
type Match struct {
	Label       int     // its number, from 0; it is an ordinary one
	Cosine      float64 // -1..1
	Probability float64 // 0..1, see Activation
	Score       float64 // what matches are ordered by
}
