// Package stages turns an image into matches and an embedding, in four stages of a pipeline: decode the compressed
// image, resize it straight into a frame of the backend, encode frames in batches, and score the embedding
// against the prompts.
package stages

import (
	"hailoclip/pipeline"
	"hailoclip/stages/decode"
)

// Request is an image and what to do with it.
type Request struct {
	Image     []byte        // compressed, or as Raw says
	Raw       decode.Raw    // the zero value: the image is compressed
	Prompts   []float32     // n x dimension, row-major, rows of unit length. Empty: no matches
	Scoring   Scoring       // how to turn cosines into matches
	Embedding bool          // the result has the embedding of the image, too
	Thumbnail bool          // the result has a small JPEG of the image, too
	Lane      pipeline.Lane // where it enters

	// Release is called exactly once for every request given to Do, whatever Do returns, when nothing in the line
	// reads the memory of Image and Prompts any more: after an error that may be later than Do returns. It
	// may run on a worker: it must not block. May be nil.
	Release func()
}

// Scoring says how cosine similarities become matches.
type Scoring struct {
	LogitScale float64 // factor of the cosines before the softmax
	Softmax    bool    // score is the probability (with two prompts or more), not the cosine
	TopK       int     // at most this many matches
	Cut        bool    // leave out the matches whose score is below Threshold
	Threshold  float64
}

// Result is what became of a request.
type Result struct {
	Matches   []Match   // by falling score, equal scores by falling cosine, then in the order of the prompts
	Embedding []float32 // unit length; nil unless asked for
	Thumbnail []byte    // JPEG, 96 pixels on the longer side; nil unless asked for
	Times     [4]pipeline.StageTime
}

// Match is a prompt that fits the image.
type Match struct {
	Prompt      int     // index of the prompt, from 0
	Cosine      float64 // -1..1
	Probability float64 // softmax over all prompts, 0..1
	Score       float64 // what matches are ordered by
}
