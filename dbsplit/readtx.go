package dbsplit

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// reads are the statements of an open read-only transaction, or of a savepoint in one. What one of them has shown counts at
// once: the caller may read elsewhere meanwhile. What the functions of a batch's queries were shown counts when Close returns.
type reads struct {
	pgx.Tx
	lease *lease
}

func (r reads) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	defer r.lease.saw()
	tag, err := r.Tx.Exec(ctx, sql, arguments...)
	return tag, r.lease.explain(err)
}

func (r reads) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := r.Tx.Query(ctx, sql, args...)
	return &shownRows{Rows: rows, lease: r.lease}, r.lease.explain(err)
}

func (r reads) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return shownRow{r.Tx.QueryRow(ctx, sql, args...), r.lease}
}

func (r reads) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return shownBatch{r.Tx.SendBatch(ctx, b), r.lease}
}

// CopyFrom is refused by PostgreSQL.
func (r reads) CopyFrom(ctx context.Context, tableName pgx.Identifier, columnNames []string, rowSrc pgx.CopyFromSource) (int64, error) {
	n, err := r.Tx.CopyFrom(ctx, tableName, columnNames, rowSrc)
	return n, r.lease.explain(err)
}

// Begin sets a savepoint.
func (r reads) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := r.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return reads{tx, r.lease}, nil
}

// shownRows note what was seen once the first row is there, or that there is none: when the statement is sent the server may
// not have looked yet.
type shownRows struct {
	pgx.Rows
	lease   *lease
	started bool
}

func (r *shownRows) Next() bool {
	more := r.Rows.Next()
	if !r.started {
		r.started = true
		r.lease.saw()
	}
	return more
}

func (r *shownRows) Err() error { return r.lease.explain(r.Rows.Err()) }

type shownRow struct {
	pgx.Row
	lease *lease
}

func (r shownRow) Scan(dest ...any) error {
	defer r.lease.saw()
	return r.lease.explain(r.Row.Scan(dest...))
}

// shownBatch are the results of a batch of reads.
type shownBatch struct {
	pgx.BatchResults
	lease *lease
}

func (b shownBatch) Exec() (pgconn.CommandTag, error) {
	defer b.lease.saw()
	tag, err := b.BatchResults.Exec()
	return tag, b.lease.explain(err)
}

func (b shownBatch) Query() (pgx.Rows, error) {
	rows, err := b.BatchResults.Query()
	return &shownRows{Rows: rows, lease: b.lease}, b.lease.explain(err)
}

func (b shownBatch) QueryRow() pgx.Row {
	return shownRow{b.BatchResults.QueryRow(), b.lease}
}

func (b shownBatch) Close() error {
	defer b.lease.saw()
	return b.lease.explain(b.BatchResults.Close())
}

// readBatch are those of one that has a lease of its own.
type readBatch struct {
	shownBatch
	lease  lease
	tx     *readTx // has the lease when the batch began a transaction
	closed bool
	err    error
}

func newReadBatch(results pgx.BatchResults, l lease) *readBatch {
	b := &readBatch{lease: l}
	b.shownBatch = shownBatch{results, &b.lease}
	if tx := results.Tx(); tx != nil {
		b.tx = newReadTx(tx, l)
	}
	return b
}

func (b *readBatch) Close() error {
	if b.closed {
		return b.err
	}
	b.closed = true
	err := b.BatchResults.Close()
	b.err = b.lease.explain(err)
	if b.tx == nil {
		b.lease.node.load.answer(b.lease.begun, b.lease.db.now())
		b.lease.give(err)
	} else {
		b.lease.saw()
	}
	return b.err
}

func (b *readBatch) Tx() pgx.Tx {
	if b.tx == nil {
		return nil
	}
	return b.tx
}
