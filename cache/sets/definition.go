// Package sets has prompt sets: named lists of labels that images are compared with. A Definition says what a set is, its
// Entries are the texts and examples that come of it, and a File keeps sets and the vectors of their texts. Sets are the
// user's: they are written with fsync, and their file is never deleted by the program.
package sets

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Definition says what a prompt set compares images with, and how cosines become scores. It is what PUT reads and GET
// writes, as JSON, and what files and the configuration hold, as YAML or JSON. ParseJSON and ParseYAML return it normalised:
// with its defaults in place, so that equal sets are written alike.
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
	Name      string     `json:"name" yaml:"name"` // unique within the set; the prompt where there is nothing else
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
	ID            string `json:"id" yaml:"id"`                                             // ExampleID of its first vector; alone in a PUT: keep it
	Model         string `json:"model,omitempty" yaml:"model,omitempty"`                   // digest of the image encoder that Vector is from
	Vector        Bytes  `json:"vector,omitempty" yaml:"vector,omitempty"`                 // float32, little-endian, of unit length
	Thumbnail     Bytes  `json:"thumbnail,omitempty" yaml:"thumbnail,omitempty"`           // JPEG, longer side 96 pixels; nil: a vector alone
	FromThumbnail bool   `json:"from_thumbnail,omitempty" yaml:"from_thumbnail,omitempty"` // Vector was made of Thumbnail, for another model
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

// Alpha is a number above 0, or 0 for "auto", which has it chosen. One that could not be read is NaN.
type Alpha float64

// UnmarshalJSON reads "auto" or a number.
func (a *Alpha) UnmarshalJSON(b []byte) error {
	var n float64
	switch text := string(b); {
	case text == `"auto"` || text == "null":
		*a = 0
	case json.Unmarshal(b, &n) == nil && n > 0:
		*a = Alpha(n)
	default:
		*a = Alpha(math.NaN())
	}
	return nil
}

// MarshalJSON writes "auto" or a number.
func (a Alpha) MarshalJSON() ([]byte, error) { return json.Marshal(a.value()) }

// MarshalYAML is as MarshalJSON.
func (a Alpha) MarshalYAML() (any, error) { return a.value(), nil }

func (a Alpha) value() any {
	if a == 0 {
		return "auto"
	}
	return float64(a)
}

// Bytes are written as base64.
type Bytes []byte

// MarshalYAML writes base64.
func (b Bytes) MarshalYAML() (any, error) { return base64.StdEncoding.EncodeToString(b), nil }

// Record is a set as it is kept.
type Record struct {
	Name       string     `json:"name"`
	Definition Definition `json:"definition"`
	Changed    time.Time  `json:"changed"`
	Shared     bool       `json:"shared,omitempty"` // this version is, or was, that of a fleet: nobody has changed it but there

	// Former is what answers until this version does, in a form of who puts it; nil: nothing is kept of it.
	Former []byte `json:"-"`
}

// ExampleID is the hex SHA-256 of an example's vector, cut to 32 digits.
func ExampleID(vector []byte) string {
	sum := sha256.Sum256(vector)
	return hex.EncodeToString(sum[:16])
}

// Normalized returns d with its defaults in place, no white space around texts, and the ids of examples that have none. It
// shares what it need not change with d, which stays as it is.
func (d Definition) Normalized() Definition {
	d.Activation = cmp.Or(d.Activation, "softmax")
	d.Temperature = cmp.Or(d.Temperature, 1)
	d.FewShot.Mode = cmp.Or(d.FewShot.Mode, "auto")
	if t := d.Templates; t != nil && t.Name == "" {
		d.Templates = &Templates{List: trimmed(t.List)}
	}
	d.Labels = slices.Clone(d.Labels)
	for i := range d.Labels {
		l := &d.Labels[i]
		l.Name, l.Pool = strings.TrimSpace(l.Name), cmp.Or(l.Pool, "mean")
		l.Prompts, l.Negation = trimmed(l.Prompts), trimmed(l.Negation)
	}
	d.Background.Prompts = trimmed(d.Background.Prompts)
	if d.Background.Prompts == nil {
		d.Background.Prompts = []string{}
	}
	for _, o := range d.Owners() {
		*o.Examples = slices.Clone(*o.Examples)
		for i := range *o.Examples {
			if e := &(*o.Examples)[i]; e.ID == "" && len(e.Vector) > 0 {
				e.ID = ExampleID(e.Vector)
			}
		}
	}
	return d
}

func trimmed(texts []string) []string {
	texts = slices.Clone(texts)
	for i := range texts {
		texts[i] = strings.TrimSpace(texts[i])
	}
	return texts
}

// Owner is what in a definition has examples: a label, or the background.
type Owner struct {
	Where    string // labels[2] or background
	Images   *[]string
	Examples *[]Example
}

// Owners returns the labels of d in their order, then its background.
func (d *Definition) Owners() []Owner {
	list := make([]Owner, 0, len(d.Labels)+1)
	for i := range d.Labels {
		list = append(list, Owner{fmt.Sprintf("labels[%d]", i), &d.Labels[i].Images, &d.Labels[i].Examples})
	}
	return append(list, Owner{"background", &d.Background.Images, &d.Background.Examples})
}

// HasImages says whether there are images that have not become examples.
func (d Definition) HasImages() bool {
	return slices.ContainsFunc(d.Owners(), func(o Owner) bool { return len(*o.Images) > 0 })
}
