package compat

import (
	"strconv"

	"hailoclip/api/rawjson"
)

// clipAsService is the HTTP interface of Jina's clip-as-service 0.8. Its vectors are not of unit length; ours are.
var clipAsService = Dialect{
	Name: "clip_as_service",
	Routes: []Route{
		{Method: "POST", Path: "/post", JSON: clipDocuments, Write: writeClip},
		{Method: "POST", Path: "/rank", JSON: clipRank, Write: writeClip},
	},
	Fail: failClip,
}

// clipDocument is one of a request, with its matches as they are numbered in the items.
type clipDocument struct {
	id, text, uri string
	matches       []clipDocument
}

// clipAnswer is what the readers leave for the writer.
type clipAnswer struct {
	endpoint  string // "/" or "/rank"
	documents []clipDocument
}

func clipDocuments(a *Ask, b *Body) error {
	endpoint := "/"
	if rawjson.Given(b.ExecEndpoint) {
		var err error
		if endpoint, err = choice("execEndpoint", b.ExecEndpoint, "/", "/encode", "/rank"); err != nil {
			return err
		}
	}
	return a.clip(endpoint, b)
}

func clipRank(a *Ask, b *Body) error { return a.clip("/rank", b) }

func (a *Ask) clip(endpoint string, b *Body) (err error) {
	if err := a.model(b.Model); err != nil { // which its own clients do not send
		return err
	}
	c := &clipAnswer{endpoint: endpoint}
	a.Extra = c
	if rawjson.Elements(b.Data) == 0 {
		return fault("data", "'data' must be an array of at least one document")
	}
	c.documents, err = a.clipItems("data", b.Data, endpoint == "/rank")
	return err
}

// clipItems adds the documents of an array, each followed by its matches where they are ranked.
func (a *Ask) clipItems(field string, raw rawjson.Raw, ranks bool) (list []clipDocument, err error) {
	err = a.array(field, raw, func(item Item, raw rawjson.Raw) error {
		var o struct{ ID, Text, URI, Blob, Matches rawjson.Raw }
		if !rawjson.Fields(raw, &o) {
			return fault(item.Name(), "'%s' must be an object with 'text', 'uri' or 'blob'", item.Name())
		}
		var d clipDocument
		switch {
		case rawjson.Given(o.Blob) && string(o.Blob) != `""`:
			err = item.image(o.Blob)
		case rawjson.Given(o.URI) && (isURL(o.URI) || isDataURI(o.URI)):
			if err = item.image(o.URI); item.URL != nil {
				d.uri, _ = text(o.URI)
			}
		case rawjson.Given(o.Text):
			err = item.text(o.Text)
		default:
			err = fault(item.Name(), "'%s' must have 'text', 'blob' (base64), or a 'uri' that begins with data:image/ or http", item.Name())
		}
		if err != nil {
			return err
		}
		d.id, _ = text(o.ID)
		d.text = item.Text
		a.Items = append(a.Items, item)
		if ranks {
			if d.matches, err = a.clipItems(item.Name()+".matches", o.Matches, false); err == nil && len(d.matches) == 0 {
				err = fault(item.Name(), "'%s' must have 'matches' to rank", item.Name())
			}
		}
		list = append(list, d)
		return err
	})
	return list, err
}

func writeClip(b []byte, a *Ask, r *Result) []byte {
	c := a.Extra.(*clipAnswer)
	b = rawjson.AppendString(append(b, `{"header":{"requestId":`...), r.ID)
	b = rawjson.AppendString(append(b, `,"status":null,"execEndpoint":`...), c.endpoint)
	b = append(b, `,"targetExecutor":""},"parameters":{},"routes":[],"data":[`...)
	at := 0
	for i := range c.documents {
		if i > 0 {
			b = append(b, ',')
		}
		d := &c.documents[i]
		b = a.appendDocument(b, d, r, at)
		vectors := r.Vectors[at : at+1+len(d.matches)]
		b = append(b, `,"matches":`...)
		if at += len(vectors); len(d.matches) == 0 {
			b = append(b, "null}"...)
			continue
		}
		for rank, m := range a.Service.rank(vectors) {
			b = append(b, "[,"[min(rank, 1)])
			b = a.appendDocument(b, &d.matches[m.Label], r, at-len(d.matches)+m.Label)
			b = rawjson.AppendFloat(append(b, `,"scores":{"clip_score":{"value":`...), m.Probability)
			b = rawjson.AppendFloat(append(b, `,"op_name":"softmax"},"clip_score_cosine":{"value":`...), m.Cosine)
			b = append(b, `,"op_name":"cosine"}}}`...)
		}
		b = append(b, "]}"...)
	}
	return append(b, "]}"...)
}

// appendDocument appends a document without its end: more follows.
func (a *Ask) appendDocument(b []byte, d *clipDocument, r *Result, at int) []byte {
	id := d.id
	if id == "" {
		id = r.ID + "-" + strconv.Itoa(at)
	}
	b = rawjson.AppendString(append(b, `{"id":`...), id)
	for _, f := range [...]struct{ name, text string }{{`,"text":`, d.text}, {`,"uri":`, d.uri}} {
		if f.text != "" {
			b = rawjson.AppendString(append(b, f.name...), f.text)
		}
	}
	return a.appendVector(append(b, `,"embedding":`...), r.Vectors[at].Embedding)
}

// failClip has the error where clients of Jina look for it, in the header.
func failClip(b []byte, f *Failure) []byte {
	b = rawjson.AppendString(append(b, `{"header":{"requestId":`...), f.RequestID)
	b = rawjson.AppendString(append(b, `,"status":{"code":"ERROR","description":`...), f.Text)
	b = rawjson.AppendString(append(b, `,"exception":null}},"parameters":{},"routes":[],"data":null,"detail":`...), f.Text)
	return append(b, '}')
}
