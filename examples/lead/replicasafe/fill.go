package replicasafe

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// fill puts rows into the tables that have none, as well as it can without knowing what they mean.
func (s *scratch) fill(ctx context.Context) error {
	for _, step := range []struct{ list, each string }{
		// A partitioned table needs a partition to hold them.
		{`SELECT format('CREATE TABLE %I PARTITION OF %s DEFAULT', c.relname || '_scratch', c.oid::regclass)
			FROM pg_class c WHERE c.relkind = 'p' AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)`, "partition"},
		{fillStatements, "rows"},
	} {
		rows, err := s.conn.Query(ctx, step.list)
		if err != nil {
			return err
		}
		statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, statement := range statements {
			if _, err := s.conn.Exec(ctx, statement); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				s.note("no %s for a table, what depends on them was not seen: %v (%s)", step.each, err, brief(statement))
			}
		}
	}
	return nil
}

func (s *scratch) note(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !strings.Contains(strings.Join(s.notes, "\n"), note) {
		s.notes = append(s.notes, note)
	}
}

// fillStatements lists an INSERT for each table of ours without a row, with a value for each column that has no default.
const fillStatements = `
	SELECT format('INSERT INTO %s (%s) SELECT %s FROM generate_series(1, 3) n WHERE NOT EXISTS (SELECT FROM %1$s)', c.oid::regclass,
		string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
		string_agg(CASE
			WHEN t.typtype = 'e' THEN format('(enum_range(NULL::%s))[1]', a.atttypid::regtype)
			WHEN t.typcategory = 'A' THEN quote_literal('{}') || '::' || a.atttypid::regtype
			WHEN t.typname = 'uuid' THEN 'gen_random_uuid()'
			WHEN t.typcategory = 'D' THEN 'now()'
			WHEN t.typcategory = 'B' THEN 'true'
			WHEN t.typcategory = 'N' THEN 'n'
			WHEN t.typcategory = 'S' THEN quote_literal('x') || ' || n'
			WHEN t.typname IN ('json', 'jsonb') THEN quote_literal('{}') || '::' || t.typname
			WHEN t.typname = 'bytea' THEN quote_literal('\x00') || '::bytea'
			WHEN t.typname = 'interval' THEN quote_literal('1 day') || '::interval'
			WHEN t.typname = 'inet' THEN quote_literal('10.0.0.1') || '::inet'
			ELSE 'NULL' END, ', ' ORDER BY a.attnum))
	FROM pg_class c
	JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
	JOIN pg_type t ON t.oid = a.atttypid
	WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'goose_db_version'
	GROUP BY c.oid ORDER BY c.oid`
