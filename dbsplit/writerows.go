package dbsplit

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// writeRows are the rows of a statement on the primary.
type writeRows struct {
	pgx.Rows
	statement
	succession succession
	ctx        context.Context //nolint:containedctx // of the one call that the rows stand for, as pgx keeps it
	sql        string
	args       []any
	owned      bool // the connection is released with the rows
	batch      *writeBatch
	started    bool
	done       bool
	err        error
}

func (r *writeRows) send() error {
	for {
		s, err := r.succession.begin(r.ctx)
		if err != nil {
			return err
		}
		rows, err := s.conn.Query(r.ctx, r.sql, r.args...)
		if err == nil {
			r.Rows, r.statement = rows, s
			return nil
		}
		err = s.explain(err)
		s.conn.Release()
		if !r.succession.again(r.ctx, s, err) {
			return err
		}
	}
}

func (r *writeRows) Close() {
	if r.done {
		return
	}
	r.done = true
	r.Rows.Close()
	if r.err = r.Rows.Err(); !r.batch.over() {
		r.err = r.explain(r.err)
	}
	if r.owned {
		r.conn.Release()
	}
}

func (r *writeRows) Err() error {
	if r.done {
		return r.err
	}
	return r.Rows.Err()
}

func (r *writeRows) Next() bool {
	for !r.done {
		if r.Rows.Next() {
			r.started = true
			return true
		}
		r.Close()
		if !r.owned || r.started || !r.succession.again(r.ctx, r.statement, r.err) {
			return false
		}
		r.done = false
		if r.err = r.send(); r.err != nil {
			r.done = true
		}
	}
	return false
}

func (r *writeRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *writeRows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	if err != nil {
		r.Close()
	}
	return values, err
}

// writeRow is the row of a statement on the primary.
type writeRow struct {
	row pgx.Row
	statement
	succession succession
	ctx        context.Context //nolint:containedctx // of the one call that the row stands for, as pgx keeps it
	sql        string
	args       []any
	owned      bool
	batch      *writeBatch
	done       bool
}

var errScanned = errors.New("dbsplit: this row has been scanned, or could not be: query again")

func (r *writeRow) send() error {
	s, err := r.succession.begin(r.ctx)
	if err == nil {
		r.row, r.statement = s.conn.QueryRow(r.ctx, r.sql, r.args...), s
	}
	return err
}

func (r *writeRow) Scan(dest ...any) error {
	if r.done {
		return errScanned
	}
	if r.batch.over() {
		return r.row.Scan(dest...)
	}
	r.done = r.owned // its connection is given back
	for {
		err := r.scan(dest)
		if !r.owned || !r.succession.again(r.ctx, r.statement, err) {
			return err
		}
		if err := r.send(); err != nil {
			return err
		}
	}
}

func (r *writeRow) scan(dest []any) error {
	if r.owned {
		defer r.conn.Release() // also when a Scanner panics
	}
	return r.explain(r.row.Scan(dest...))
}

// writeBatch are the results of a batch on the primary.
type writeBatch struct {
	pgx.BatchResults
	statement
	tx     *writeTx // owns the connection when the batch began a transaction
	closed bool
	err    error
}

// over reports whether the batch has given its connection back. Nil has none.
func (b *writeBatch) over() bool { return b != nil && b.closed }

func (b *writeBatch) Exec() (pgconn.CommandTag, error) {
	tag, err := b.BatchResults.Exec()
	if b.closed {
		return tag, err
	}
	return tag, b.explain(err)
}

func (b *writeBatch) Query() (pgx.Rows, error) {
	rows, err := b.BatchResults.Query()
	if b.closed {
		return rows, err
	}
	if err != nil {
		return rows, b.explain(err)
	}
	return &writeRows{Rows: rows, statement: b.statement, batch: b}, nil
}

func (b *writeBatch) QueryRow() pgx.Row {
	if b.closed {
		return b.BatchResults.QueryRow()
	}
	return &writeRow{row: b.BatchResults.QueryRow(), statement: b.statement, batch: b}
}

func (b *writeBatch) Close() error {
	if b.closed {
		return b.err
	}
	b.closed = true
	b.err = b.explain(b.BatchResults.Close())
	if b.tx == nil {
		b.conn.Release()
	}
	return b.err
}

func (b *writeBatch) Tx() pgx.Tx {
	if b.tx == nil {
		return nil
	}
	return b.tx
}

// errRows are rows of a statement that was never sent.
type errRows struct{ err error }

func (errRows) Close()                                       {}
func (r errRows) Err() error                                 { return r.err }
func (errRows) CommandTag() pgconn.CommandTag                { return pgconn.CommandTag{} }
func (errRows) FieldDescriptions() []pgconn.FieldDescription { return nil }
func (errRows) Next() bool                                   { return false }
func (r errRows) Scan(...any) error                          { return r.err }
func (r errRows) Values() ([]any, error)                     { return nil, r.err }
func (errRows) RawValues() [][]byte                          { return nil }
func (errRows) Conn() *pgx.Conn                              { return nil }
func (errRows) TypeMap() *pgtype.Map                         { return nil }

type errRow struct{ err error }

func (r errRow) Scan(...any) error { return r.err }
