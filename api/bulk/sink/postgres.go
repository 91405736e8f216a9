package sink

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/lib/pq"

	"hailoclip/api/bulk"
)

// defaultTable is the name of the table if the address has none.
const defaultTable = "vectors"

// postgresSink keeps rows in a table. What names a row in its primary key is key and hash128 of the path, because an index takes no
// long texts.
type postgresSink struct {
	db     *sql.DB
	table  string // quoted
	vector string // the type of the column embedding, without its dimension
	dim    int    // of the column; 0: the type has none
	made   bool   // there is a table
}

func openPostgres(ctx context.Context, u *url.URL, o Options) (bulk.Sink, error) {
	query := u.Query()
	table, err := quoteTable(query.Get("table"))
	if err != nil {
		return nil, err
	}
	query.Del("table")
	if !query.Has("connect_timeout") {
		query.Set("connect_timeout", "10")
	}
	rest := *u
	rest.RawQuery = query.Encode()
	connector, err := pq.NewConnector(rest.String())
	if err != nil {
		return nil, without(err, u)
	}
	s := &postgresSink{db: sql.OpenDB(connector), table: table, dim: o.Dimension}
	s.db.SetMaxOpenConns(1)
	if err := retry(ctx, 1, func(ctx context.Context) error { return s.prepare(ctx, o) }); err != nil {
		return nil, errors.Join(without(err, u), s.db.Close())
	}
	return s, nil
}

// without is an error in whose text the password of an address does not occur.
func without(err error, u *url.URL) error {
	secrets := []string{u.Query().Get("password"), u.Query().Get("sslpassword")}
	if u.User != nil {
		password, _ := u.User.Password()
		secrets = append(secrets, password)
	}
	text := err.Error()
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			err = errors.New(strings.ReplaceAll(text, secret, "***"))
			text = err.Error()
		}
	}
	return err
}

// passing marks errors that another try may not meet: the connection was lost, the server is starting, full, or ended this
// transaction for the sake of another.
func passing(err error) error {
	_, network := errors.AsType[net.Error](err)
	if e, ok := errors.AsType[*pq.Error](err); ok {
		class := string(e.Code.Class())
		network = class == "08" || class == "40" || class == "53" || class == "57" && e.Code != "57014"
	}
	if network || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return temporary{error: err}
	}
	return err
}

func (s *postgresSink) Put(ctx context.Context, rows []bulk.Row) error {
	rows, err := ready(rows, s.dim)
	if err != nil || len(rows) == 0 {
		return err
	}
	if !s.made {
		return fmt.Errorf("there is no table %s, and none was made, since the dimension of vectors is not known", s.table)
	}
	var keys, hashes, paths, models []string
	var vectors, matches, failures []sql.NullString
	for _, r := range rows {
		keys, hashes, paths, models = append(keys, r.Key), append(hashes, hash128(r.Path)), append(paths, r.Path), append(models, r.Model)
		vectors = append(vectors, sql.NullString{String: s.text(r.Embedding), Valid: len(r.Embedding) > 0})
		list, err := json.Marshal(r.Matches)
		if err != nil {
			return err
		}
		matches = append(matches, sql.NullString{String: string(list), Valid: len(r.Matches) > 0})
		failures = append(failures, sql.NullString{String: r.Error, Valid: r.Error != ""})
	}
	put := `INSERT INTO ` + s.table + ` (key, path_hash, path, model, embedding, classifications, error)
		SELECT k, h, p, m, e::` + s.vector + `, c::jsonb, f
		FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS new (k, h, p, m, e, c, f)
		ON CONFLICT (key, path_hash) DO UPDATE SET path = EXCLUDED.path, model = EXCLUDED.model, embedding = EXCLUDED.embedding,
			classifications = EXCLUDED.classifications, error = EXCLUDED.error`
	return retry(ctx, patience.tries, func(ctx context.Context) error {
		_, err := s.db.ExecContext(ctx, put, pq.Array(keys), pq.Array(hashes), pq.Array(paths), pq.Array(models),
			pq.Array(vectors), pq.Array(matches), pq.Array(failures))
		return passing(err)
	})
}

// Remove implements bulk.Remover.
func (s *postgresSink) Remove(ctx context.Context, rows []bulk.ID) error {
	if !s.made {
		return nil
	}
	var keys, hashes []string
	for _, id := range rows {
		if plain(id.Key) { // others are not there
			keys, hashes = append(keys, id.Key), append(hashes, hash128(id.Path))
		}
	}
	remove := `DELETE FROM ` + s.table + ` USING unnest($1::text[], $2::uuid[]) AS gone (k, h) WHERE key = k AND path_hash = h`
	return retry(ctx, patience.tries, func(ctx context.Context) error {
		_, err := s.db.ExecContext(ctx, remove, pq.Array(keys), pq.Array(hashes))
		return passing(err)
	})
}

// text is a vector as a literal of the column's type.
func (s *postgresSink) text(v []float32) string {
	b := make([]byte, 1, 2+12*len(v))
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(x), 'g', -1, 32)
	}
	if b = append(b, '}'); s.vector == "real[]" {
		b[0] = '{'
	} else {
		b[0], b[len(b)-1] = '[', ']'
	}
	return string(b)
}

func (s *postgresSink) Find(ctx context.Context, key string) (r bulk.Row, found bool, err error) {
	if !s.made || !plain(key) {
		return r, false, nil
	}
	var vector, matches, failure sql.NullString
	get := `SELECT key, path, model, embedding::text, classifications::text, error FROM ` + s.table + ` WHERE key = $1 LIMIT 1`
	err = retry(ctx, patience.tries, func(ctx context.Context) error {
		return passing(s.db.QueryRowContext(ctx, get, key).Scan(&r.Key, &r.Path, &r.Model, &vector, &matches, &failure))
	})
	if errors.Is(err, sql.ErrNoRows) {
		return bulk.Row{}, false, nil
	} else if err != nil {
		return bulk.Row{}, false, err
	}
	r.Error = failure.String
	if matches.Valid {
		if err := json.Unmarshal([]byte(matches.String), &r.Matches); err != nil {
			return bulk.Row{}, false, fmt.Errorf("the classifications of %q are none: %w", r.Path, err)
		}
	}
	if vector.Valid {
		if r.Embedding, err = parseVector(vector.String); err != nil {
			return bulk.Row{}, false, fmt.Errorf("the embedding of %q: %w", r.Path, err)
		}
	}
	return r, true, nil
}

// parseVector reads what text writes.
func parseVector(s string) (v []float32, err error) {
	for field := range strings.SplitSeq(strings.Trim(s, "{}[]"), ",") {
		x, err := strconv.ParseFloat(field, 32)
		if err != nil {
			return nil, errors.New("not a list of numbers")
		}
		v = append(v, float32(x))
	}
	return v, nil
}

func (s *postgresSink) Each(ctx context.Context, row func(key, path string) error) error {
	if !s.made {
		return nil
	}
	type name struct{ key, hash, path string }
	var names []name
	next := `SELECT key, path_hash::text, path FROM ` + s.table + ` WHERE (key, path_hash) > ($1, $2::uuid)
		ORDER BY key, path_hash LIMIT ` + strconv.Itoa(page)
	for last := (name{hash: "00000000-0000-0000-0000-000000000000"}); ; {
		err := retry(ctx, patience.tries, func(ctx context.Context) error {
			names = names[:0]
			rows, err := s.db.QueryContext(ctx, next, last.key, last.hash)
			if err != nil {
				return passing(err)
			}
			defer func() { _ = rows.Close() }() // Err has what it would say
			for rows.Next() {
				var n name
				if err := rows.Scan(&n.key, &n.hash, &n.path); err != nil {
					return err
				}
				names = append(names, n)
			}
			return passing(rows.Err())
		})
		if err != nil || len(names) == 0 {
			return err
		}
		for _, n := range names {
			if err := row(n.key, n.path); err != nil {
				return err
			}
		}
		last = names[len(names)-1]
	}
}

func (s *postgresSink) Finish(context.Context) error { return nil }

func (s *postgresSink) Close() error { return s.db.Close() }
