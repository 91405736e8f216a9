// Package sink stores the rows of an index: in a file (bbolt, Parquet), in PostgreSQL with or without pgvector, or in Qdrant. A row
// is identified by its key and path everywhere, so that to store one again replaces it.
package sink

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"hailoclip/api/bulk"
)

// Options of the rows that a sink is to store.
type Options struct {
	Dimension int    // numbers of a vector; 0: not known, so that no table or collection is made
	Model     string // for messages
}

// Forms tells the addresses that Open knows, for messages and help.
const Forms = "FILE.ndjson, FILE.parquet, FILE.db, postgres://user@host/database?table=NAME, qdrant://host:6333/collection"

// Limits of what names a row, in bytes. A row that exceeds them, or whose path is not UTF-8 or has a NUL, is refused by Put: there
// is no sink that could give it back as it was.
const (
	maxKey  = 256
	maxPath = 8 << 10
)

// openers by the scheme of an address.
var openers = map[string]func(context.Context, *url.URL, Options) (bulk.Sink, error){
	"postgres": openPostgres, "postgresql": openPostgres, "qdrant": openQdrant, "qdrants": openQdrant,
}

// files by suffix.
var files = map[string]func(path string, o Options) (bulk.Sink, error){
	".db": openBolt, ".parquet": openParquet,
	".ndjson": func(path string, _ Options) (bulk.Sink, error) { return bulk.OpenNDJSON(path) },
}

// Open opens the sink at an address, one of Forms, and makes it if there is none. A file that another process has open as a sink
// is refused. Errors name the address without its password. Put changes no row that it is given. All are a bulk.Remover, and that of
// .ndjson is a bulk.Placer.
func Open(ctx context.Context, address string, o Options) (bulk.Sink, error) {
	sink, err := open(ctx, address, o)
	if _, ok := errors.AsType[*DimensionError](err); ok {
		return nil, fmt.Errorf("sink %s, model %s: %w", Name(address), o.Model, err)
	} else if err != nil {
		return nil, fmt.Errorf("sink %s: %w", Name(address), err)
	}
	return sink, nil
}

func open(ctx context.Context, address string, o Options) (bulk.Sink, error) {
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		if openers[scheme] == nil {
			return nil, fmt.Errorf("no sink has addresses of %s://; there are %s", scheme, Forms)
		}
		u, err := url.Parse(address)
		if err != nil {
			return nil, hidden(err)
		}
		return openers[scheme](ctx, u, o)
	}
	if open := files[filepath.Ext(address)]; open != nil {
		return open(address, o)
	}
	return nil, fmt.Errorf("no sink has this suffix; there are %s", Forms)
}

// hidden is what url.Parse found wrong, without the address in it.
func hidden(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		// What is quoted may be a part of the password, such as a port that is none.
		reason, _, _ := strings.Cut(e.Err.Error(), `"`)
		return fmt.Errorf("not an address: %s (special characters of a password are written as %%XX)", strings.TrimSpace(reason))
	}
	return errors.New("not an address")
}

// Name is an address without password and other parameters that may be secret: for messages, and as what a sink is known by.
func Name(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return scheme + "://..."
	}
	name := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.User != nil && u.User.Username() != "" {
		name.User = url.User(u.User.Username())
	}
	query := u.Query()
	maps.DeleteFunc(query, func(key string, _ []string) bool {
		return !slices.Contains([]string{"table", "host", "port", "dbname"}, key)
	})
	name.RawQuery = query.Encode()
	if rest == "" {
		return address
	}
	return name.String()
}

// ready returns what of rows is to be stored: one row for each key and path, the last, in the order of their first. What a database
// could not hold is taken out of texts that do not identify a row, and vectors that are none become errors of their rows. A row
// that cannot be named is an error, and so is a vector of another dimension, unless that is 0.
func ready(rows []bulk.Row, dimension int) ([]bulk.Row, error) {
	type name struct{ key, path string }
	at := make(map[name]int, len(rows))
	kept := make([]bulk.Row, 0, len(rows))
	for _, r := range rows {
		switch {
		case r.Key == "" || len(r.Key) > maxKey || !plain(r.Key):
			return nil, fmt.Errorf("the row of %q has the key %.300q, which is none", r.Path, r.Key)
		case r.Path == "" || len(r.Path) > maxPath || !plain(r.Path):
			return nil, fmt.Errorf("the path %.300q of %d bytes cannot be stored: it must be UTF-8 without NUL, of 1 to %d bytes",
				r.Path, len(r.Path), maxPath)
		case dimension > 0 && len(r.Embedding) > 0 && len(r.Embedding) != dimension:
			return nil, &DimensionError{Got: len(r.Embedding), Want: dimension}
		}
		r.Model, r.Error = clean(r.Model), clean(r.Error)
		if !slices.ContainsFunc(r.Embedding, func(v float32) bool { return !finite(float64(v)) }) && !slices.ContainsFunc(r.Matches, odd) {
			r.Matches = slices.Clone(r.Matches)
			for i := range r.Matches {
				r.Matches[i].Label = clean(r.Matches[i].Label)
			}
		} else {
			r.Embedding, r.Matches, r.Error = nil, nil, "the model gave a vector or score that is not a number"
		}
		id := name{r.Key, r.Path}
		if i, ok := at[id]; ok {
			kept[i] = r
			continue
		}
		at[id] = len(kept)
		kept = append(kept, r)
	}
	return kept, nil
}

// DimensionError says that vectors of one dimension were to be stored among those of another.
type DimensionError struct{ Got, Want int }

func (e *DimensionError) Error() string {
	return fmt.Sprintf("vectors of %d numbers cannot be stored among vectors of %d, which another model made; name another place",
		e.Got, e.Want)
}

func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func clean(s string) string {
	if plain(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func odd(m bulk.Match) bool { return !finite(m.Score) || !finite(m.Probability) || !finite(m.Cosine) }

// hash128 is the beginning of the SHA-256 of a text, as a UUID (RFC 9562, version 8): what a database knows a long name by.
func hash128(s string) string {
	sum := sha256.Sum256([]byte(s))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
