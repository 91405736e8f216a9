package compat

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"hailoclip/api/rawjson"
)

// immich is the interface of Immich's machine learning service, as far as that is CLIP; the rest is for Service.Upstream.
var immich = Dialect{
	Name: "immich",
	Routes: []Route{
		{Method: "GET", Path: "/", Own: true, Get: immichHome},
		{Method: "GET", Path: "/ping", Open: true, Always: true, Get: immichPing},
		{Method: "POST", Path: "/predict", Always: true, Form: immichPart, End: immichTask, Write: writeImmich},
	},
	Fail: failImmich,
}

func immichHome(*Service, string) (Reply, error) {
	return Reply{Body: []byte(`{"message":"Immich ML"}`)}, nil
}

// immichPing says whether Immich should send its CLIP tasks here: it takes its next server for as long as this is not 200.
func immichPing(s *Service, _ string) (Reply, error) {
	switch why := s.Unready(); {
	case why != "":
		return Reply{Status: 503, Media: "text/plain", Body: []byte(why)}, nil
	case s.MadeUp:
		return Reply{Status: 503, Media: "text/plain", Body: []byte(madeUp)}, nil
	}
	return Reply{Media: "text/plain", Body: []byte("pong")}, nil
}

const madeUp = "The vectors of the simulated chip tell nothing, see sim.serve_hash"

// immichForm is the parts of a request, which lie in the body; nil: not sent.
type immichForm struct{ entries, image, text []byte }

// immichPart takes a part. Others than Immich's own are ignored, such as assetId, which some of its forks send.
func immichPart(a *Ask, name string, data []byte) error {
	f, _ := a.Extra.(*immichForm)
	if f == nil {
		f = new(immichForm)
		a.Extra = f
	}
	field := map[string]*[]byte{"entries": &f.entries, "image": &f.image, "text": &f.text}[name]
	switch {
	case field == nil:
	case *field != nil:
		return fault(name, "'%s' comes twice", name)
	case data == nil:
		*field = []byte{}
	default:
		*field = data
	}
	return nil
}

const (
	maxEntries = 64 << 10 // bytes
	invalid    = "Invalid request format. "
)

// immichTask reads what is asked, once all parts are there. What is not for the model that runs is forwarded, or refused: Immich
// would not see that a vector is another model's.
func immichTask(a *Ask) error {
	f, _ := a.Extra.(*immichForm)
	if f == nil || f.entries == nil {
		return fault("entries", invalid+"'entries' is missing")
	}
	var tasks map[string]map[string]struct{ ModelName *string }
	if len(f.entries) > maxEntries || json.Unmarshal(f.entries, &tasks) != nil {
		return fault("entries", invalid+"'entries' must be a JSON object of at most %d bytes, of tasks and their types", maxEntries)
	}
	var all []string // "clip.visual"
	model := ""
	for task, types := range tasks {
		for kind, entry := range types {
			if all = append(all, task+"."+kind); entry.ModelName == nil || *entry.ModelName == "" {
				return fault("entries", invalid+"'%.64s.%.64s' lacks 'modelName'", task, kind)
			}
			model = *entry.ModelName
		}
	}
	only := func(task string) bool { return len(all) == 1 && all[0] == task }
	isCLIP := only("clip.visual") || only("clip.textual")
	switch {
	case len(all) == 0:
		return fault("entries", "No model task requested.")
	case a.Service.Upstream && (!isCLIP || !a.Service.immichNamed(model) || a.Service.MadeUp):
		a.Forward = true
		return nil
	case !isCLIP:
		slices.Sort(all)
		return &Fault{Kind: ErrModel, Text: "This service does one task of CLIP at a time, and not " + strings.ToValidUTF8(cut(strings.Join(all, ", ")), "") +
			": name a server for the others in compat.immich.upstream"}
	case !a.Service.immichNamed(model):
		return a.named(model)
	case a.Service.MadeUp:
		return &Fault{Kind: ErrUnavailable, Text: madeUp}
	case only("clip.visual") && f.image != nil:
		a.Items = []Item{{File: f.image, field: "image", at: -1}}
		return nil
	case only("clip.textual") && !utf8.Valid(f.text):
		return fault("text", "'text' is not valid UTF-8")
	case only("clip.textual") && len(strings.TrimSpace(string(f.text))) > 0:
		a.Items = []Item{{Text: shorten(string(f.text)), field: "text", at: -1}}
		return nil
	}
	return fault("", "Either image or text must be provided: %s needs its own", all[0])
}

// cut bounds a text of the client's that is shown to it.
func cut(s string) string { return s[:min(len(s), 200)] }

// immichNamed is Named for names as Immich writes them, such as ViT-B-32::openai and immich-app/ViT-B-32__openai.
func (s *Service) immichNamed(name string) bool {
	is := func(own string) bool {
		return cleanImmich(own) == cleanImmich(name[strings.LastIndexByte(name, '/')+1:])
	}
	return s.Named(name) || is(s.Model) || slices.ContainsFunc(s.Aliases, is)
}

// cleanImmich makes of a name what Immich makes of the last segment of one. With a slash it stays another name.
var cleanImmich = strings.NewReplacer(":", "_", `\`, "_", ".", "").Replace

func writeImmich(b []byte, a *Ask, r *Result) []byte {
	v := &r.Vectors[0]
	b = rawjson.AppendNumbers(append(b, `{"clip":"`...), v.Embedding) // in a string, which gets into a column of pgvector as it is
	b = append(b, '"')
	if !a.Items[0].IsText() {
		b = strconv.AppendInt(append(b, `,"imageHeight":`...), int64(v.Height), 10)
		b = strconv.AppendInt(append(b, `,"imageWidth":`...), int64(v.Width), 10)
	}
	return append(b, '}')
}

func failImmich(b []byte, f *Failure) []byte {
	if f.Param == "entries" && f.Status == 400 {
		f.Status = 422
	}
	return append(rawjson.AppendString(append(b, `{"detail":`...), f.Text), '}')
}
