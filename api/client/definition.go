package client

import "encoding/json"

// Definition says what a prompt set compares images with, and how cosines become scores. Its fields are those of
// cache/sets.Definition, which the service reads; a test keeps them equal.
type Definition struct {
	Labels     []Label    `json:"labels"`
	Templates  *Templates `json:"templates"` // nil: prompts are taken as written
	Background Background `json:"background"`
	FewShot    FewShot    `json:"fewshot"`
	Activation string     `json:"activation"` // softmax, sigmoid, pair or none; "": softmax

	Temperature float64  `json:"temperature"` // divides the logits; 0: 1
	MinCosine   *float64 `json:"min_cosine"`  // nil: none
	MinMargin   *float64 `json:"min_margin"`  // nil: none
}

// Label is one answer that a set can give, or with Negative one that it must not.
type Label struct {
	Name      string     `json:"name"` // unique within the set
	Prompts   []string   `json:"prompts,omitempty"`
	Negation  []string   `json:"negation,omitempty"` // prompts for "it is not there", with activation pair
	Pool      string     `json:"pool,omitempty"`     // mean or max over the prompts; "": mean
	Images    []string   `json:"images,omitempty"`   // base64 of compressed images, in a Put only: they become Examples
	Examples  []Example  `json:"examples,omitempty"`
	Negative  bool       `json:"negative,omitempty"`
	Threshold *Threshold `json:"threshold,omitempty"`
}

// Example is what is kept of an example image: its vector and a thumbnail, not the image.
type Example struct {
	ID            string `json:"id"`                       // alone in a Put: keep this one
	Model         string `json:"model,omitempty"`          // digest of the image encoder that Vector is from
	Vector        []byte `json:"vector,omitempty"`         // float32, little-endian, of unit length
	Thumbnail     []byte `json:"thumbnail,omitempty"`      // JPEG, 96 pixels on the longer side; nil for a vector alone
	FromThumbnail bool   `json:"from_thumbnail,omitempty"` // Vector was made of Thumbnail after a change of the model
}

// Threshold is the scores at which streams say that a label begins and ends to hold.
type Threshold struct {
	Enter float64 `json:"enter"`
	Exit  float64 `json:"exit"`
}

// Background is what is seen where none of the labels is.
type Background struct {
	Auto     bool      `json:"auto"` // the built-in scene negatives
	Prompts  []string  `json:"prompts"`
	Images   []string  `json:"images,omitempty"` // as Label.Images
	Examples []Example `json:"examples,omitempty"`
}

// FewShot says how examples are used.
type FewShot struct {
	Mode  string `json:"mode"`  // auto, off, prototype or gda; "": auto
	Alpha Alpha  `json:"alpha"` // weight of the examples with gda
}

// Templates is a built-in list of templates by its name, or a list of texts with {} for the prompt.
type Templates struct {
	Name string
	List []string // where Name is ""
}

// MarshalJSON writes the name, or the list.
func (t Templates) MarshalJSON() ([]byte, error) {
	if t.Name != "" {
		return json.Marshal(t.Name)
	}
	return json.Marshal(t.List)
}

// UnmarshalJSON reads a name or a list.
func (t *Templates) UnmarshalJSON(b []byte) error {
	*t = Templates{}
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &t.Name)
	}
	return json.Unmarshal(b, &t.List)
}

// Alpha is a number, or "auto" (0), which has it chosen.
type Alpha float64

// MarshalJSON writes "auto" for 0.
func (a Alpha) MarshalJSON() ([]byte, error) {
	if a == 0 {
		return []byte(`"auto"`), nil
	}
	return json.Marshal(float64(a))
}

// UnmarshalJSON reads a number or "auto".
func (a *Alpha) UnmarshalJSON(b []byte) error {
	*a = 0
	if string(b) == `"auto"` {
		return nil
	}
	return json.Unmarshal(b, (*float64)(a))
}
