package dbsplit

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// guard makes the transaction that it begins read-only. It is sent with the statement that it guards, in one pipeline
// with one Sync, which PostgreSQL takes for one transaction: no round trip is added, a pooler finds one server for both, and
// when anything fails nothing is left open. SET TRANSACTION would do the same with a warning in the server's log each
// time; and since guard counts as a query, what follows cannot make the transaction writable again.
const guard = "select set_config('transaction_read_only', 'on', true)"

// mild is guard for a connection of its own. It takes no snapshot, so that the transaction can still be given one, or a level
// of isolation.
const mild = "set transaction read only"

// guarded is a connection of a pool. Where its session cannot be read-only, each of its statements is so by itself.
type guarded struct {
	*poolConn
	each  bool
	since time.Duration // when it was acquired
}

type poolConn = pgxpool.Conn // as a field it would hide the method Conn

func (g guarded) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if !g.each {
		return g.poolConn.Exec(ctx, sql, args...)
	}
	if len(args) == 0 { // the simple protocol, as pgx does: sql may be several statements
		return g.poolConn.Exec(ctx, guard+";\n"+sql)
	}
	rows, err := g.Query(ctx, sql, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rows.Close()
	return rows.CommandTag(), rows.Err()
}

func (g guarded) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if !g.each {
		return g.poolConn.Query(ctx, sql, args...)
	}
	if len(args) > 0 {
		switch args[0].(type) {
		case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
			return g.queryAlone(ctx, sql, args) // pgx takes these in no batch
		}
	}
	batch := new(pgx.Batch)
	batch.Queue(guard)
	batch.Queue(sql, args...)
	results := g.poolConn.SendBatch(ctx, batch)
	rows, err := afterGuard(results)
	if err != nil {
		_ = results.Close() // the same error
		return errRows{err: err}, err
	}
	return &guardedRows{Rows: rows, end: results.Close}, nil
}

func afterGuard(results pgx.BatchResults) (pgx.Rows, error) {
	if _, err := results.Exec(); err != nil {
		return nil, err
	}
	return results.Query()
}

// queryAlone spends round trips on a transaction.
func (g guarded) queryAlone(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	tx, end, err := g.begin(ctx)
	if err != nil {
		return errRows{err: err}, err
	}
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		_ = end()
		return errRows{err: err}, err
	}
	return &guardedRows{Rows: rows, end: end}, nil
}

// begin opens a read-only transaction. Its end needs no answer from the server that would matter to the caller.
func (g guarded) begin(ctx context.Context) (tx pgx.Tx, end func() error, err error) {
	tx, err = g.poolConn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, nil, err
	}
	return tx, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		return tx.Rollback(ctx)
	}, nil
}

func (g guarded) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if !g.each {
		return g.poolConn.QueryRow(ctx, sql, args...)
	}
	rows, err := g.Query(ctx, sql, args...)
	if err != nil {
		return errRow{err: err}
	}
	return guardedRow{rows}
}

func (g guarded) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if !g.each || b.Len() == 0 {
		return g.poolConn.SendBatch(ctx, b)
	}
	whole := *b
	whole.QueuedQueries = append([]*pgx.QueuedQuery{{SQL: guard}}, b.QueuedQueries...)
	results := g.poolConn.SendBatch(ctx, &whole)
	_, _ = results.Exec() // its error is also that of what follows
	return results
}

// readOnly is what makes a transaction read-only that has just begun.
func (g guarded) readOnly() string {
	if g.each {
		return guard
	}
	return mild
}

// begins reports whether a batch begins a transaction, with Batch.BeginTx. pgx tells it only after such a batch was sent, or
// was not: what it queues has no arguments.
func begins(b *pgx.Batch) bool {
	return b.Len() > 0 && len(b.QueuedQueries[0].Arguments) == 0 && pgx.FailedBatchResults(b, nil).Tx() != nil
}

// sendBegun sends a batch that begins a transaction with one query more, behind the one that begins it.
func (g guarded) sendBegun(ctx context.Context, b *pgx.Batch, more string) pgx.BatchResults {
	whole := *b
	whole.QueuedQueries = append([]*pgx.QueuedQuery{b.QueuedQueries[0], {SQL: more}}, b.QueuedQueries[1:]...)
	return &begunBatch{BatchResults: g.poolConn.SendBatch(ctx, &whole)}
}

// begunBatch leaves out the second result.
type begunBatch struct {
	pgx.BatchResults
	asked int
}

func (b *begunBatch) next() {
	if b.asked++; b.asked == 2 {
		_, _ = b.BatchResults.Exec() // its error is also that of what follows
	}
}

func (b *begunBatch) Exec() (pgconn.CommandTag, error) {
	b.next()
	return b.BatchResults.Exec()
}

func (b *begunBatch) Query() (pgx.Rows, error) {
	b.next()
	return b.BatchResults.Query()
}

func (b *begunBatch) QueryRow() pgx.Row {
	b.next()
	return b.BatchResults.QueryRow()
}

// CopyFrom is refused by PostgreSQL, wherever it goes.
func (g guarded) CopyFrom(ctx context.Context, tableName pgx.Identifier, columnNames []string, rowSrc pgx.CopyFromSource) (int64, error) {
	if !g.each {
		return g.poolConn.CopyFrom(ctx, tableName, columnNames, rowSrc)
	}
	tx, end, err := g.begin(ctx)
	if err != nil {
		return 0, err
	}
	n, err := tx.CopyFrom(ctx, tableName, columnNames, rowSrc)
	if endErr := end(); err == nil {
		err = endErr
	}
	return n, err
}

// guardedRows are the rows of a statement that is a transaction of its own, which ends with them.
type guardedRows struct {
	pgx.Rows
	end  func() error
	done bool
	err  error
}

func (r *guardedRows) Close() {
	if r.done {
		return
	}
	r.done = true
	r.Rows.Close()
	err := r.end()
	if r.err = r.Rows.Err(); r.err == nil {
		r.err = err
	}
}

func (r *guardedRows) Err() error {
	if r.done {
		return r.err
	}
	return r.Rows.Err()
}

func (r *guardedRows) Next() bool {
	if r.done {
		return false
	}
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *guardedRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *guardedRows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	if err != nil {
		r.Close()
	}
	return values, err
}

// guardedRow is the row of such a statement.
type guardedRow struct{ rows pgx.Rows }

func (r guardedRow) Scan(dest ...any) error {
	for _, d := range dest {
		if _, ok := d.(*pgtype.DriverBytes); ok {
			r.rows.Close()
			return errors.New("dbsplit: a row cannot be scanned into *pgtype.DriverBytes, which would outlive it: use Query")
		}
	}
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	err := r.rows.Scan(dest...)
	r.rows.Close()
	if err != nil {
		return err
	}
	return r.rows.Err()
}
