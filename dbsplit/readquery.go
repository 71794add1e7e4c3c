package dbsplit

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// QueryRow reads at most one row. The statement is sent when the row is scanned.
func (r *Reader) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return &readRow{r: r, ctx: ctx, sql: sql, args: args}
}

type readRow struct {
	r    *Reader
	ctx  context.Context //nolint:containedctx // of the one call that the row stands for, as pgx keeps it
	sql  string
	args []any
}

// Scan sends the statement, as Query does, and scans the row.
func (row *readRow) Scan(dest ...any) error {
	if row.r.s.special {
		return row.scanFirst(dest)
	}
	var a attempt
	for {
		l, err := row.r.lease(row.ctx, &a)
		if err != nil {
			return err
		}
		again := false
		err = l.use(func() error {
			err := l.conn.QueryRow(row.ctx, row.sql, row.args...).Scan(dest...)
			again = a.again(row.ctx, &l, err)
			return err
		})
		if !again {
			return l.explain(err)
		}
	}
}

// use runs one whole statement on l and gives the connection back, also when a Scanner panics.
func (l *lease) use(f func() error) (err error) {
	defer func() { l.give(err) }()
	err = f()
	if err == nil {
		l.node.load.answer(l.begun, l.db.endedAt(l.conn.Conn()))
	}
	return err
}

// Exec runs a statement that returns no rows, over a read-only session.
func (r *Reader) Exec(ctx context.Context, sql string, arguments ...any) (tag pgconn.CommandTag, err error) {
	var a attempt
	for {
		l, err := r.lease(ctx, &a)
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		again := false
		err = l.use(func() error {
			var err error
			tag, err = l.conn.Exec(ctx, sql, arguments...)
			again = a.again(ctx, &l, err)
			return err
		})
		if !again {
			return tag, l.explain(err)
		}
	}
}

// Query reads rows. Until the first row, a failed node is replaced by another one, once, and two replicas whose replay cancels
// it by the primary.
func (r *Reader) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if r.s.special {
		return r.special(ctx, sql, args, false)
	}
	return r.query(ctx, sql, args)
}

func (r *Reader) query(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	rows := &readRows{r: r, ctx: ctx, sql: sql, args: args}
	if err := rows.send(); err != nil {
		return errRows{err: err}, err
	}
	return rows, nil
}

type readRows struct {
	pgx.Rows
	r     *Reader
	ctx   context.Context //nolint:containedctx // of the one call that the rows stand for, as pgx keeps it
	sql   string
	args  []any
	lease lease
	attempt
	started bool
	done    bool
	err     error
}

// send sends the statement to a node that has not failed it yet.
func (r *readRows) send() error {
	for {
		l, err := r.r.lease(r.ctx, &r.attempt)
		if err != nil {
			return err
		}
		rows, err := l.conn.Query(r.ctx, r.sql, r.args...)
		if err == nil {
			r.Rows, r.lease = rows, l
			return nil
		}
		again := r.again(r.ctx, &l, err)
		l.give(err)
		if !again {
			return l.explain(err)
		}
	}
}

func (r *readRows) Next() bool {
	for !r.done {
		if r.Rows.Next() {
			r.start()
			return true
		}
		err := r.Rows.Err()
		if r.started || !r.again(r.ctx, &r.lease, err) {
			r.Close()
			return false
		}
		r.lease.give(err)
		if err := r.send(); err != nil {
			r.done, r.err = true, err
		}
	}
	return false
}

// start notes the first answer: the time that the caller then takes for the rows says nothing about the node.
func (r *readRows) start() {
	if !r.started {
		r.started = true
		r.lease.saw()
		r.lease.node.load.answer(r.lease.begun, r.lease.db.now())
	}
}

func (r *readRows) Close() {
	if r.done {
		return
	}
	r.done = true
	r.Rows.Close()
	err := r.Rows.Err()
	if err == nil {
		r.start()
	}
	r.err = r.lease.explain(err)
	r.lease.give(err)
}

func (r *readRows) Err() error {
	if r.done {
		return r.err
	}
	return r.Rows.Err()
}

func (r *readRows) Scan(dest ...any) error {
	err := r.Rows.Scan(dest...)
	if err != nil {
		r.Close()
	}
	return err
}

func (r *readRows) Values() ([]any, error) {
	values, err := r.Rows.Values()
	if err != nil {
		r.Close()
	}
	return values, err
}

// Begin opens a read-only transaction: all its statements see one node.
func (r *Reader) Begin(ctx context.Context) (pgx.Tx, error) {
	return r.BeginTx(ctx, pgx.TxOptions{})
}

// BeginTx opens a read-only transaction, also when txOptions.BeginQuery says otherwise. A serializable one goes to the
// primary, since a standby has none.
func (r *Reader) BeginTx(ctx context.Context, txOptions pgx.TxOptions) (pgx.Tx, error) {
	if txOptions.AccessMode == pgx.ReadWrite {
		return nil, errReadWrite
	}
	txOptions.AccessMode = pgx.ReadOnly
	if txOptions.IsoLevel == pgx.Serializable {
		r = r.fromPrimary()
	}
	var a attempt
	for {
		l, err := r.lease(ctx, &a)
		if err != nil {
			return nil, err
		}
		begin := txOptions
		if begin.BeginQuery != "" { // which says nothing of that
			begin.BeginQuery += "\n;" + l.conn.readOnly()
		}
		tx, err := l.conn.BeginTx(ctx, begin)
		if err == nil {
			l.node.load.answer(l.begun, r.db.now())
			return newReadTx(tx, l), nil
		}
		again := a.again(ctx, &l, err)
		l.give(err)
		if !again {
			return nil, l.explain(err)
		}
	}
}

func (r *Reader) fromPrimary() *Reader {
	r = &Reader{db: r.db, s: r.s}
	r.s.primary = true
	return r
}

// beginSerializable is how pgx begins what Batch.BeginTx was given Serializable for, of which it tells nothing else. A BeginQuery
// of the caller's own begins in any way, and is not looked at: a standby refuses what is serializable then.
const beginSerializable = "begin isolation level " + string(pgx.Serializable)

// SendBatch sends a batch of reads. It is not repeated elsewhere when its node fails. A transaction that it begins is
// read-only, whatever the options of Batch.BeginTx; a serializable one goes to the primary, as with BeginTx, unless it has a
// BeginQuery, which is not looked at.
func (r *Reader) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	begun := begins(b)
	if begun && strings.HasPrefix(b.QueuedQueries[0].SQL, beginSerializable) {
		r = r.fromPrimary()
	}
	var a attempt
	l, err := r.lease(ctx, &a)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	if begun {
		return newReadBatch(l.conn.sendBegun(ctx, b, l.conn.readOnly()), l)
	}
	return newReadBatch(l.conn.SendBatch(ctx, b), l)
}

// CopyFrom is there because sqlc's interface has it. PostgreSQL refuses it with ErrWriteInRead.
func (r *Reader) CopyFrom(ctx context.Context, tableName pgx.Identifier, columnNames []string, rowSrc pgx.CopyFromSource) (int64, error) {
	var a attempt
	l, err := r.lease(ctx, &a)
	if err != nil {
		return 0, err
	}
	n, err := l.conn.CopyFrom(ctx, tableName, columnNames, rowSrc)
	l.give(err)
	return n, l.explain(err)
}
