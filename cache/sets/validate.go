package sets

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a set. Those of the whole keep it from being a memory bomb and from taking the encoder away for hours: at 99
// texts a second (the NPU's ViT-B/32) 100,000 take 17 minutes.
const (
	MaxSets      = 1_000
	MaxLabels    = 1_000
	MaxPrompts   = 100 // of a label, of its negation, and of the background
	MaxExamples  = 16  // images and examples of a label, and of the background
	MaxTemplates = 100
	MaxTexts     = 100_000  // prompts times templates, beside those of background.auto
	MaxTextBytes = 16 << 20 // of these
	MaxRows      = 10_000   // vectors that images are compared with: one a label, with pool max one a prompt
	maxVector    = 4 * 8192 // bytes
	maxThumbnail = 64 << 10 // bytes
	maxFaults    = 20       // that are told
)

// Limits are the bounds of a set that the configuration knows.
type Limits struct {
	PromptBytes int  // of a prompt, a template or the name of a label
	NoImages    bool // there may be examples, but no images
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ValidName says whether a set may have this name.
func ValidName(name string) bool { return nameRule.MatchString(name) }

// Validate says what is wrong with d, as Normalized returns it: Faults, joined, at most maxFaults. An example may have
// what GET answers of it: its id, and FromThumbnail, which says nothing then.
func (d Definition) Validate(limits Limits) error {
	v := validator{Limits: limits, seen: map[string]int{}}
	v.set(d)
	return errors.Join(v.Findings...)
}

type validator struct {
	Limits
	Findings
	seen         map[string]int // number of the label of that name
	texts, bytes int
	rows         int
	per, perSize int // templates, and their bytes without {}
	ofName       int // templates for a label that has only its name
}

func (v *validator) set(d Definition) {
	v.templates(d.Templates)
	v.OneOf(d.Activation, "activation", "softmax", "sigmoid", "pair", "none")
	v.OneOf(d.FewShot.Mode, "fewshot.mode", "auto", "off", "prototype", "gda")
	v.Want(d.FewShot.Alpha >= 0 && d.FewShot.Alpha <= 1000, "fewshot.alpha", `must be "auto" or a number above 0 and at most 1000`)
	v.Between(&d.Temperature, "temperature", 0.001, 1000)
	v.Between(d.MinCosine, "min_cosine", -1, 1)
	v.Between(d.MinMargin, "min_margin", 0, 1)

	v.prompts(d.Background.Prompts, "background.prompts")
	v.examples(d.Background.Images, d.Background.Examples, "background")
	v.rows += len(d.Background.Prompts)

	ordinary := 0
	background := d.Background.Auto || len(d.Background.Prompts) > 0 ||
		d.FewShot.Mode != "off" && len(d.Background.Images)+len(d.Background.Examples) > 0
	for _, l := range d.Labels {
		background = background || l.Negative
		if !l.Negative {
			ordinary++
		}
	}
	v.Want(ordinary > 0, "labels", "must have a label that is not negative")
	v.Want(len(d.Labels) <= MaxLabels, "labels", "has more than %d labels", MaxLabels)
	for i, l := range d.Labels[:min(len(d.Labels), MaxLabels)] {
		v.label(l, i, d.Activation == "pair", background)
	}
	v.Want(v.texts <= MaxTexts, "labels", "makes %d texts of prompts and templates, more than %d", v.texts, MaxTexts)
	v.Want(v.bytes <= MaxTextBytes, "labels", "makes %d bytes of text of prompts and templates, more than %d", v.bytes, MaxTextBytes)
	v.Want(v.rows <= MaxRows, "labels",
		"needs %d vectors, more than %d: one for each label, with pool max for each prompt", v.rows, MaxRows)
}

func (v *validator) templates(t *Templates) {
	v.per, v.ofName = 1, len(builtin["clip7"])
	if t == nil {
		return
	}
	texts := t.Texts()
	v.Want(len(texts) > 0, "templates", "must be none, clip7, imagenet80, or a list of texts with {}")
	v.Want(len(texts) <= MaxTemplates, "templates", "has more than %d templates", MaxTemplates)
	for i, text := range texts[:min(len(texts), MaxTemplates)] {
		field := fmt.Sprintf("templates[%d]", i)
		v.text(text, field)
		v.Want(strings.Count(text, "{}") == 1, field, "must have {} once, where the prompt goes")
		v.perSize += len(text) - len("{}")
	}
	v.per, v.ofName = len(texts), len(texts)
}

func (v *validator) label(l Label, i int, pair, background bool) {
	field := fmt.Sprintf("labels[%d]", i)
	v.text(l.Name, field+".name")
	v.Want(!strings.ContainsFunc(l.Name, unicode.IsControl), field+".name", "must not have control characters")
	first, twice := v.seen[l.Name]
	v.Want(!twice, field+".name", "is that of labels[%d] already: %.64q", first, l.Name)
	v.seen[l.Name] = i

	v.OneOf(l.Pool, field+".pool", "mean", "max")
	v.prompts(l.Prompts, field+".prompts")
	v.prompts(l.Negation, field+".negation")
	v.examples(l.Images, l.Examples, field)
	if len(l.Prompts) == 0 {
		v.count(l.Name, v.ofName)
	}
	v.rows++
	if l.Pool == "max" {
		v.rows += len(l.Prompts) + len(l.Negation)
	}
	switch {
	case len(l.Negation) > 0:
		v.Want(pair, field+".negation", "is for activation pair only")
		v.Want(!l.Negative, field+".negation", "is for labels that are not negative")
	case pair && !l.Negative:
		v.Want(background, field+".negation", "is missing: activation pair needs one for each label, or a background")
	}
	if t := l.Threshold; t != nil {
		v.Between(&t.Enter, field+".threshold.enter", -1, 1)
		v.Between(&t.Exit, field+".threshold.exit", -1, 1)
		v.Want(!(t.Exit > t.Enter), field+".threshold.exit", "must not be above enter")
	}
}

func (v *validator) prompts(texts []string, field string) {
	v.Want(len(texts) <= MaxPrompts, field, "has more than %d prompts", MaxPrompts)
	for i, text := range texts[:min(len(texts), MaxPrompts)] {
		v.text(text, fmt.Sprintf("%s[%d]", field, i))
		v.count(text, v.per)
	}
}

// count counts what becomes of a prompt.
func (v *validator) count(text string, templates int) {
	v.texts += templates
	v.bytes += templates*len(text) + v.perSize
}

func (v *validator) text(text, field string) {
	v.Want(text != "", field, "is empty")
	v.Want(len(text) <= v.PromptBytes, field, "is longer than %d bytes", v.PromptBytes)
	v.Want(utf8.ValidString(text), field, "is not valid UTF-8")
}

func (v *validator) examples(images []string, examples []Example, field string) {
	v.Want(len(images) == 0 || !v.NoImages, field+".images",
		"must not be here: add them by the API, and export the set to get their examples")
	v.Want(len(images)+len(examples) <= MaxExamples, field+".images", "has more than %d images and examples", MaxExamples)
	seen := map[string]bool{}
	for i, e := range examples[:min(len(examples), MaxExamples)] {
		at := fmt.Sprintf("%s.examples[%d]", field, i)
		v.Want(!seen[e.ID], at+".id", "stands twice")
		seen[e.ID] = true
		v.example(e, at)
	}
}

func (v *validator) example(e Example, field string) {
	id, err := hex.DecodeString(e.ID)
	v.Want(err == nil && len(id) == 16 && e.ID == strings.ToLower(e.ID), field+".id", "must have 32 hexadecimal digits")
	if e.Vector == nil {
		v.Want(e.Thumbnail == nil && e.Model == "", field+".vector", "is missing")
		return
	}
	v.Want(len(e.Vector) <= maxVector && unit(e.Vector), field+".vector",
		"must be base64 of float32 numbers, little-endian, of unit length")
	v.Want(e.FromThumbnail || e.ID == ExampleID(e.Vector), field+".id", "is not that of its vector")
	v.Want(e.Model != "", field+".model", "is missing: the digest of the image encoder that the vector is from")
	v.Want(len(e.Model) <= 128 && !strings.ContainsFunc(e.Model, unicode.IsControl), field+".model", "must be a digest")
	v.Want(len(e.Thumbnail) <= maxThumbnail, field+".thumbnail", "is longer than %d bytes", maxThumbnail)
	v.Want(e.Thumbnail == nil || bytes.HasPrefix(e.Thumbnail, []byte{0xff, 0xd8, 0xff}), field+".thumbnail", "must be a JPEG")
	v.Want(e.Thumbnail != nil || !e.FromThumbnail, field+".thumbnail", "is missing")
}

// unit says whether b is a vector of unit length, with the tolerance of the encoders.
func unit(b []byte) bool {
	square := 0.0
	for _, x := range ParseVector(b) {
		square += float64(x) * float64(x)
	}
	return len(b)%4 == 0 && math.Abs(square-1) <= 1e-2
}
