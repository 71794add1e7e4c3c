package dbsplit

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// special is Query of a Reader with options that need more than one statement. one is set when it stands for QueryRow.
func (r *Reader) special(ctx context.Context, sql string, args []any, one bool) (pgx.Rows, error) {
	s := r.drawn(ctx, sql, args, one)
	if s == nil {
		return r.maybeHedge(ctx, sql, args)
	}
	told := *r
	told.s.report = func(p Provenance) {
		s.result.Answer.Provenance = p
		if r.s.report != nil {
			r.s.report(p)
		}
	}
	inner, err := told.maybeHedge(ctx, sql, args)
	rows := &shadowRows{Rows: inner, s: s}
	if err != nil {
		rows.end(false)
	}
	return rows, err
}

func (r *Reader) maybeHedge(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	if r.s.hedged {
		if own, ok := copied(args); ok {
			return r.hedge(ctx, sql, own)
		}
	}
	return r.query(ctx, sql, args)
}

// scanFirst is Scan by Query.
func (row *readRow) scanFirst(dest []any) error {
	rows, err := row.r.special(row.ctx, row.sql, row.args, true)
	if err != nil {
		return err
	}
	defer rows.Close() // when a Scanner panics
	return guardedRow{rows}.Scan(dest...)
}
