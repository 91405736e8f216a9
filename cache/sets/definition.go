// Package sets keeps prompt sets: named lists of labels that images are compared with. They are the user's: they are
// written with fsync and never deleted by the program.
package sets

import "time"

// Definition says what a prompt set compares images with, and how cosines become scores. It is what PUT reads and GET
// writes, as JSON, and what files and the configuration hold, as YAML or JSON.
type Definition struct {
	Labels     []Label    `json:"labels" yaml:"labels"`
	Templates  *Templates `json:"templates" yaml:"templates,omitempty"` // nil: prompts are taken as written
	Background Background `json:"background" yaml:"background,omitempty"`
	FewShot    FewShot    `json:"fewshot" yaml:"fewshot,omitempty"`
	Activation string     `json:"activation" yaml:"activation,omitempty"` // softmax, sigmoid, pair or none; "": softmax

	Temperature float64  `json:"temperature" yaml:"temperature,omitempty"` // divides the logits; 0: 1
	MinCosine   *float64 `json:"min_cosine" yaml:"min_cosine,omitempty"`   // nil: none
	MinMargin   *float64 `json:"min_margin" yaml:"min_margin,omitempty"`   // nil: none
}

// Label is one answer that a set can give, or with Negative one that it must not.
type Label struct {
	Name      string     `json:"name" yaml:"name"` // unique within the set
	Prompts   []string   `json:"prompts,omitempty" yaml:"prompts,omitempty"`
	Negation  []string   `json:"negation,omitempty" yaml:"negation,omitempty"` // prompts for "it is not there", with activation pair
	Pool      string     `json:"pool,omitempty" yaml:"pool,omitempty"`         // mean or max over the prompts; "": mean
	Images    []string   `json:"images,omitempty" yaml:"images,omitempty"`     // base64, in a request only: they become Examples
	Examples  []Example  `json:"examples,omitempty" yaml:"examples,omitempty"`
	Negative  bool       `json:"negative,omitempty" yaml:"negative,omitempty"`
	Threshold *Threshold `json:"threshold,omitempty" yaml:"threshold,omitempty"`
}

// Example is what is kept of an example image: its vector and a thumbnail, not the image.
type Example struct {
	ID            string `json:"id" yaml:"id"`                                             // hex SHA-256 of the vector, cut to 32 digits; alone in a PUT: keep this one
	Model         string `json:"model,omitempty" yaml:"model,omitempty"`                   // digest of the image encoder that Vector is from
	Vector        []byte `json:"vector,omitempty" yaml:"vector,omitempty"`                 // float32, little-endian, of unit length
	Thumbnail     []byte `json:"thumbnail,omitempty" yaml:"thumbnail,omitempty"`           // JPEG, 96 pixels on the longer side; nil for a vector alone
	FromThumbnail bool   `json:"from_thumbnail,omitempty" yaml:"from_thumbnail,omitempty"` // Vector was made of Thumbnail after a change of the model
}

// Threshold is the scores at which streams say that a label begins and ends to hold.
type Threshold struct {
	Enter float64 `json:"enter" yaml:"enter"`
	Exit  float64 `json:"exit" yaml:"exit"`
}

// Background is what is seen where none of the labels is.
type Background struct {
	Auto     bool      `json:"auto" yaml:"auto,omitempty"` // the built-in scene negatives
	Prompts  []string  `json:"prompts" yaml:"prompts,omitempty"`
	Images   []string  `json:"images,omitempty" yaml:"images,omitempty"` // as Label.Images
	Examples []Example `json:"examples,omitempty" yaml:"examples,omitempty"`
}

// FewShot says how examples are used.
type FewShot struct {
	Mode  string `json:"mode" yaml:"mode,omitempty"`   // auto, off, prototype or gda; "": auto
	Alpha Alpha  `json:"alpha" yaml:"alpha,omitempty"` // weight of the examples with gda
}

// Templates is a built-in list of templates by its name, or a list of texts with {} for the prompt.
type Templates struct {
	Name string
	List []string // of Name, when that is given
}

// Alpha is a number, or "auto" (0), which has it chosen.
type Alpha float64

// Record is a set as it is kept.
type Record struct {
	Name       string     `json:"name"`
	Definition Definition `json:"definition"`
	Changed    time.Time  `json:"changed"`
}
