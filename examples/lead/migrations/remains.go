package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// Remains is an index that a migration has left unfinished: every write keeps it up to date, and no query uses it.
type Remains struct {
	Index, Table string
	// Remove is the statement that removes it.
	Remove string
}

// String says what is there and what to do.
func (r Remains) String() string {
	return fmt.Sprintf("index %s on %s is unfinished, no query uses it: run `leadapi migrate up`, which takes it up again where the migration can, or remove it with %s",
		r.Index, r.Table, r.Remove)
}

// remains finds indexes that are invalid although nobody builds them at the moment.
func remains(ctx context.Context, db *sql.DB) (out []Remains, err error) {
	rows, err := db.QueryContext(ctx, `
		SELECT i.oid::regclass::text, x.indrelid::regclass::text,
			CASE i.relkind WHEN 'I' THEN 'DROP INDEX ' ELSE 'DROP INDEX CONCURRENTLY ' END || i.oid::regclass::text
		FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
		WHERE NOT x.indisvalid AND i.relnamespace <> 'pg_toast'::regnamespace AND NOT EXISTS (
			SELECT FROM pg_stat_progress_create_index b WHERE b.index_relid = i.oid)
		ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Remains
		if err := rows.Scan(&r.Index, &r.Table, &r.Remove); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// list puts each on a line of its own.
func list(remains []Remains) string {
	var b strings.Builder
	for _, r := range remains {
		b.WriteString("\n  " + r.String())
	}
	return b.String()
}
