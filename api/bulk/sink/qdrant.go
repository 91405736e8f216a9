package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"hailoclip/api/bulk"
)

// QdrantKey is the environment variable with the API key of Qdrant.
const QdrantKey = "QDRANT_API_KEY"

// qdrantSink keeps each row as a point of a collection, with hash128 of key and path as its id and all but the vector as its
// payload. A row without a vector is a point without one, so that Each and Find know it and no search finds it.
type qdrantSink struct {
	base   url.URL // of the collection
	key    string  // never in an error or a log
	client *http.Client
	tries  int
	dim    int
	made   bool // there is a collection
}

func openQdrant(ctx context.Context, u *url.URL, o Options) (bulk.Sink, error) {
	collection := strings.Trim(u.EscapedPath(), "/")
	name, err := url.PathUnescape(collection)
	if err != nil || name == "" || len(name) > 255 || name == "." || name == ".." ||
		strings.ContainsAny(name, "<>:\"/\\|?*\x00\x1f") {
		return nil, errors.New("the address is qdrant://host:6333/collection")
	}
	query := u.Query()
	tls, err := strconv.ParseBool(query.Get("tls"))
	if query.Has("tls") && err != nil {
		return nil, errors.New("tls must be true or false")
	}
	query.Del("tls")
	if len(query) > 0 || u.User != nil {
		return nil, fmt.Errorf("an address of Qdrant has no user and no parameter but tls; its API key is in the environment variable %s", QdrantKey)
	}
	host := u.Host
	if u.Port() == "" {
		host += ":6333"
	}
	s := &qdrantSink{
		base: url.URL{Scheme: "http", Host: host, Path: "/collections/" + name},
		key:  os.Getenv(QdrantKey),
		dim:  o.Dimension, tries: 1, // an address that is wrong is told at once
		client: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key is for this host
		},
	}
	if tls || u.Scheme == "qdrants" {
		s.base.Scheme = "https"
	}
	if err := s.prepare(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.tries = patience.tries
	return s, nil
}

// qdrantParams are the parameters of vectors, {size, distance}, or such by name, of which size is then 0.
type qdrantParams struct {
	Size     int    `json:"size"`
	Distance string `json:"distance"`
}

// prepare makes the collection if there is none and vectors have a known dimension, and looks what it can hold.
func (s *qdrantSink) prepare(ctx context.Context, o Options) error {
	params, err := s.look(ctx)
	missing := errors.Is(err, errNotFound)
	if missing && o.Dimension == 0 {
		return nil
	} else if missing {
		err = s.ask(ctx, http.MethodPut, "", map[string]any{"vectors": qdrantParams{o.Dimension, "Cosine"}}, nil)
		if err == nil || errors.Is(err, errConflict) { // made by another in this moment
			params, err = s.look(ctx)
		}
	}
	if err != nil {
		return err
	}
	if params.Size == 0 {
		return errors.New("the vectors of the collection have names: name another collection")
	}
	if s.dim = params.Size; o.Dimension > 0 && o.Dimension != params.Size {
		return &DimensionError{Got: o.Dimension, Want: params.Size}
	}
	s.made = true
	if o.Dimension == 0 { // nothing is made
		return nil
	}
	return s.ask(ctx, http.MethodPut, "/index?wait=true", map[string]any{"field_name": "key", "field_schema": "keyword"}, nil)
}

func (s *qdrantSink) look(ctx context.Context) (qdrantParams, error) {
	var info struct {
		Config struct {
			Params struct {
				Vectors json.RawMessage `json:"vectors"`
			} `json:"params"`
		} `json:"config"`
	}
	if err := s.ask(ctx, http.MethodGet, "", nil, &info); err != nil {
		return qdrantParams{}, err
	}
	var params qdrantParams
	if json.Unmarshal(info.Config.Params.Vectors, &params) != nil || params.Size < 0 || params.Size > math.MaxInt32 {
		params = qdrantParams{} // names, one of which is size
	}
	return params, nil
}

type qdrantPayload struct {
	Key     string       `json:"key"`
	Path    string       `json:"path"`
	Model   string       `json:"model"`
	Matches []bulk.Match `json:"classifications,omitempty"`
	Error   string       `json:"error,omitempty"`
}

type qdrantPoint struct {
	ID      string        `json:"id"`
	Vector  any           `json:"vector"`
	Payload qdrantPayload `json:"payload"`
}

func (s *qdrantSink) Put(ctx context.Context, rows []bulk.Row) error {
	rows, err := ready(rows, s.dim)
	if err != nil || len(rows) == 0 {
		return err
	}
	if !s.made {
		return errors.New("there is no such collection, and none was made, since the dimension of vectors is not known")
	}
	points := make([]qdrantPoint, len(rows))
	for i, r := range rows {
		points[i] = qdrantPoint{pointID(r.Key, r.Path), struct{}{}, qdrantPayload{r.Key, r.Path, r.Model, r.Matches, r.Error}}
		if len(r.Embedding) > 0 {
			points[i].Vector = r.Embedding
		}
	}
	return s.upsert(ctx, points)
}

func pointID(key, path string) string { return hash128(key + "\x00" + path) }

// Remove implements bulk.Remover.
func (s *qdrantSink) Remove(ctx context.Context, rows []bulk.ID) error {
	if !s.made || len(rows) == 0 {
		return nil
	}
	points := make([]string, len(rows))
	for i, id := range rows {
		points[i] = pointID(id.Key, id.Path)
	}
	return s.ask(ctx, http.MethodPost, "/points/delete?wait=true", map[string]any{"points": points}, nil)
}

// upsertBytes is how large a request with points may be, of the 32 MiB that Qdrant reads.
const upsertBytes = 8 << 20

// upsert stores points, in halves where they are too large for one request.
func (s *qdrantSink) upsert(ctx context.Context, points []qdrantPoint) error {
	body, err := json.Marshal(map[string]any{"points": points})
	if err != nil {
		return err
	}
	if half := len(points) / 2; len(body) > upsertBytes && half > 0 {
		if err := s.upsert(ctx, points[:half]); err != nil {
			return err
		}
		return s.upsert(ctx, points[half:])
	}
	return s.ask(ctx, http.MethodPut, "/points?wait=true", json.RawMessage(body), nil)
}

// qdrantPage is what scroll answers.
type qdrantPage struct {
	Points []struct {
		Vector  json.RawMessage `json:"vector"`
		Payload json.RawMessage `json:"payload"`
	} `json:"points"`
	Next json.RawMessage `json:"next_page_offset"`
}

func (s *qdrantSink) Find(ctx context.Context, key string) (bulk.Row, bool, error) {
	if !s.made || !plain(key) {
		return bulk.Row{}, false, nil
	}
	var found qdrantPage
	err := s.ask(ctx, http.MethodPost, "/points/scroll", map[string]any{"limit": 1, "with_payload": true, "with_vector": true,
		"filter": map[string]any{"must": []any{map[string]any{"key": "key", "match": map[string]any{"value": key}}}}}, &found)
	if err != nil || len(found.Points) == 0 {
		return bulk.Row{}, false, err
	}
	var p qdrantPayload
	if err := json.Unmarshal(found.Points[0].Payload, &p); err != nil || p.Key != key {
		return bulk.Row{}, false, errors.New("it answers with another point than that of the key")
	}
	row := bulk.Row{Key: p.Key, Path: p.Path, Model: p.Model, Matches: p.Matches, Error: p.Error}
	if json.Unmarshal(found.Points[0].Vector, &row.Embedding) != nil { // an object without vectors
		row.Embedding = nil
	}
	return row, true, nil
}

// Each skips points of others in the collection.
func (s *qdrantSink) Each(ctx context.Context, row func(key, path string) error) error {
	if !s.made {
		return nil
	}
	for offset := json.RawMessage("null"); ; {
		var all qdrantPage
		err := s.ask(ctx, http.MethodPost, "/points/scroll", map[string]any{"limit": page, "with_payload": []string{"key", "path"},
			"with_vector": false, "offset": offset}, &all)
		if err != nil {
			return err
		}
		for _, point := range all.Points {
			var p qdrantPayload
			if json.Unmarshal(point.Payload, &p) != nil || p.Key == "" || p.Path == "" {
				continue
			}
			if err := row(p.Key, p.Path); err != nil {
				return err
			}
		}
		if len(all.Next) == 0 || string(all.Next) == "null" {
			return nil
		} else if bytes.Equal(all.Next, offset) {
			return errors.New("it tells the same page again")
		}
		offset = all.Next
	}
}

func (s *qdrantSink) Finish(context.Context) error { return nil }

func (s *qdrantSink) Close() error {
	s.client.CloseIdleConnections()
	return nil
}
