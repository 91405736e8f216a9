package sink

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// quoteTable quotes NAME or SCHEMA.NAME.
func quoteTable(name string) (string, error) {
	if name == "" {
		name = defaultTable
	}
	parts := strings.Split(name, ".")
	for i, part := range parts {
		if part == "" || len(part) > 63 || len(parts) > 2 || !plain(part) {
			return "", fmt.Errorf("%.80q is not the name of a table: NAME or SCHEMA.NAME, each of 1 to 63 bytes", name)
		}
		parts[i] = pq.QuoteIdentifier(part)
	}
	return strings.Join(parts, "."), nil
}

var typeAndDimension = regexp.MustCompile(`^(real\[\]|(?:[a-z_]+\.|"[^"]+"\.)?(?:vector|halfvec))(?:\((\d+)\))?$`)

// prepare makes the table if there is none and vectors have a known dimension, and looks what it can hold.
func (s *postgresSink) prepare(ctx context.Context, o Options) error {
	var there, pgvector sql.NullString
	err := s.db.QueryRowContext(ctx, `SELECT to_regclass($1)::text, to_regtype('vector')::text`, s.table).Scan(&there, &pgvector)
	if err != nil {
		return err
	}
	if !there.Valid {
		if o.Dimension == 0 {
			return nil
		}
		kind := "real[]"
		if pgvector.Valid {
			kind = fmt.Sprintf("vector(%d)", o.Dimension)
		}
		_, err := s.db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+s.table+` (
			key text COLLATE "C" NOT NULL, path_hash uuid NOT NULL, path text NOT NULL, model text NOT NULL,
			embedding `+kind+`, classifications jsonb, error text, PRIMARY KEY (key, path_hash))`)
		// Another process may make it in this moment: unique_violation, duplicate_table.
		if e, ok := errors.AsType[*pq.Error](err); err != nil && (!ok || e.Code != "23505" && e.Code != "42P07") {
			return err
		}
	}
	return s.look(ctx, o)
}

// look compares an existing table with what is to be stored.
func (s *postgresSink) look(ctx context.Context, o Options) error {
	columns := map[string]string{}
	rows, err := s.db.QueryContext(ctx, `SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped`, s.table)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err has what it would say
	for rows.Next() {
		var name, kind string
		if err := rows.Scan(&name, &kind); err != nil {
			return err
		}
		columns[name] = kind
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for name, kinds := range map[string][]string{"key": {"text"}, "path_hash": {"uuid"}, "path": {"text"}, "model": {"text"},
		"classifications": {"jsonb", "json"}, "error": {"text"}} {
		if !slices.Contains(kinds, columns[name]) {
			return fmt.Errorf("the table %s has no column %s of type %s: name another table (?table=)", s.table, name, kinds[0])
		}
	}
	m := typeAndDimension.FindStringSubmatch(columns["embedding"])
	if m == nil {
		return fmt.Errorf("the table %s has no column embedding of type vector, halfvec or real[]", s.table)
	}
	s.vector, s.made = m[1], true
	if m[2] == "" { // the type says none, but a row may
		var n sql.NullString
		first := `SELECT embedding::text FROM ` + s.table + ` WHERE embedding IS NOT NULL LIMIT 1`
		if err := s.db.QueryRowContext(ctx, first).Scan(&n); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if n.String != "" {
			m[2] = strconv.Itoa(strings.Count(n.String, ",") + 1)
		}
	}
	if there, err := strconv.Atoi(m[2]); err == nil && there > 0 {
		if s.dim = there; o.Dimension > 0 && o.Dimension != there {
			return &DimensionError{Got: o.Dimension, Want: there}
		}
	}
	return nil
}
