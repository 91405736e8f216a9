package compat

import (
	"strings"

	"hailoclip/api/rawjson"
)

// huggingFace is the interface of an inference endpoint of Hugging Face, for the tasks zero-shot-image-classification,
// feature-extraction and sentence-similarity: the body says which.
var huggingFace = Dialect{
	Name: "huggingface",
	Routes: []Route{
		{Method: "POST", Path: "/", JSON: hfInputs, File: hfFile, Write: writeHF},
		{Method: "POST", Path: "/predict", JSON: hfInputs, File: hfFile, Write: writeHF},
	},
	Fail: failHF,
}

const (
	hfTemplate  = "This is a photo of {}." // of transformers
	maxTemplate = 1 << 10                  // bytes: there is one for each label
)

// hfWriter is what hfInputs leaves for writeHF.
type hfWriter func(b []byte, a *Ask, r *Result) []byte

func hfInputs(a *Ask, b *Body) error {
	var parameters struct {
		Labels   rawjson.Raw `json:"candidate_labels"`
		LabelsJS rawjson.Raw `json:"candidateLabels"`
		Template rawjson.Raw `json:"hypothesis_template"`
	}
	if rawjson.Given(b.Parameters) && !rawjson.Fields(b.Parameters, &parameters) {
		return fault("parameters", "'parameters' must be an object")
	}
	labels := firstGiven(parameters.Labels, parameters.LabelsJS)
	if rawjson.Given(labels) {
		b.Inputs = firstGiven(b.Inputs, b.Image) // of older clients in Python
	}
	var sent struct{ Image, Sentences rawjson.Raw }
	isObject := rawjson.Fields(b.Inputs, &sent)
	switch {
	case rawjson.Given(labels) && rawjson.Given(b.Inputs):
		if err := a.options(b); err != nil {
			return err
		}
		if !isObject {
			sent.Image = b.Inputs
		}
		if len(sent.Image) == 0 {
			return fault("inputs", "'inputs' must be the image in base64, or an object with that in 'image'")
		}
		image := Item{field: "inputs", at: -1}
		if err := image.image(sent.Image); err != nil {
			return err
		}
		a.Items = append(a.Items, image)
		return a.labels(labels, parameters.Template)
	case rawjson.Given(sent.Sentences):
		a.Extra = hfWriter(writeSimilarity)
		return similarity(a, b)
	case isObject:
		return hfFile(a, nil)
	}
	a.Extra = hfWriter(writeVectors)
	if len(b.Inputs) > 0 && b.Inputs[0] != '[' {
		a.Extra = hfWriter(func(b []byte, a *Ask, r *Result) []byte { return a.appendVector(b, r.Vectors[0].Embedding) })
	}
	return inputs(a, b)
}

// labels adds a sentence for each label, of which there is a list, or a string with commas between them.
func (a *Ask) labels(raw, rawTemplate rawjson.Raw) error {
	const field = "parameters.candidate_labels"
	template := hfTemplate
	if rawjson.Given(rawTemplate) {
		var ok bool
		if template, ok = text(rawTemplate); !ok || !strings.Contains(template, "{}") || len(template) > maxTemplate {
			return fault("parameters.hypothesis_template", "'parameters.hypothesis_template' must be a string with {} for the label, "+
				"of at most %d bytes", maxTemplate)
		}
	}
	if joined, ok := rawjson.String(raw); ok && strings.Count(joined, ",") < MaxItems {
		raw = []byte{'['}
		for label := range strings.SplitSeq(joined, ",") {
			raw = append(rawjson.AppendString(raw, strings.TrimSpace(label)), ',')
		}
		raw[len(raw)-1] = ']'
	}
	if rawjson.Elements(raw) == 0 {
		return fault(field, "'%s' must be an array of 1 to %d labels", field, MaxItems-1)
	}
	var labels []string
	err := a.array(field, raw, func(item Item, raw rawjson.Raw) error {
		err := item.text(raw)
		labels = append(labels, item.Text)
		item.Text = shorten(strings.Replace(template, "{}", item.Text, 1))
		a.Items = append(a.Items, item)
		return err
	})
	a.Extra = hfWriter(func(b []byte, a *Ask, r *Result) []byte { return writeLabels(b, a, r, labels) })
	return err
}

// hfFile refuses the file of an image alone, which the task image-classification has.
func hfFile(*Ask, []byte) error {
	return fault("parameters.candidate_labels", "Missing 'parameters.candidate_labels': this model has no classes of its own, "+
		"send the image as zero-shot-image-classification does, with the labels to choose from")
}

func writeHF(b []byte, a *Ask, r *Result) []byte { return a.Extra.(hfWriter)(b, a, r) }

// writeLabels writes the labels by their probability, the best first.
func writeLabels(b []byte, a *Ask, r *Result, labels []string) []byte {
	for i, m := range a.Service.rank(r.Vectors) {
		b = rawjson.AppendString(append(append(b, "[,"[min(i, 1)]), `{"label":`...), labels[m.Label])
		b = append(rawjson.AppendFloat(append(b, `,"score":`...), m.Probability), '}')
	}
	return append(b, ']')
}

// failHF keeps clear of 503, which the client in JavaScript repeats at once and for ever.
func failHF(b []byte, f *Failure) []byte {
	if f.Status == 503 {
		f.Status = 502
	}
	return failError(b, f)
}
