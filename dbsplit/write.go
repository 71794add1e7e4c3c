package dbsplit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware"
)

// statement is one top-level statement, or batch, on the primary.
type statement struct {
	conn    guarded
	db      *DB
	node    *node // the writer that it was sent to; nil: not known, or it cannot write
	refused error // the gate's, if it refuses writes
}

// begin takes a connection for a top-level statement. While the gate refuses writes it is a read-only one: nobody
// but PostgreSQL knows whether a statement writes, so reads go on and writes are refused there.
func (db *DB) begin(ctx context.Context) (statement, error) {
	return (&succession{db: db}).begin(ctx)
}

func (w *succession) begin(ctx context.Context) (statement, error) {
	db := w.db
	s := statement{db: db, refused: db.allow(ctx)}
	var err error
	if s.refused == nil {
		if s.conn.poolConn, s.node, err = w.acquireWrite(ctx); errors.As(err, new(*gateError)) {
			s.refused = errors.Unwrap(err)
		}
	}
	if s.refused != nil {
		if s.conn, err = db.acquireRead(ctx, db.writer.Load()); err == nil {
			if st := stateOf(s.conn.Conn()); st != nil {
				st.gated = true
			}
		}
	}
	scaleaware.WatermarkFrom(ctx).Saw(db.asOf())
	return s, err
}

func (db *DB) allow(ctx context.Context) error {
	if db.opts.Gate == nil {
		return nil
	}
	return db.opts.Gate.AllowWrite(ctx)
}

// overtaken returns an error when writes do not go to n any more, which has answered one. What a server answers that was
// replaced meanwhile is no success: its successor may lack it, and it will be lost with the old server then.
func (db *DB) overtaken(n *node) error {
	if n == nil || n == db.writer.Load() {
		return nil
	}
	return fmt.Errorf("%w: %s has answered it, but writes have moved to another server meanwhile", ErrOutcomeUnknown, n.name)
}

// stillWriter returns an error when what was begun on n must not be committed: writes do not go to it any more, or nobody
// can tell where they go.
func (db *DB) stillWriter(n *node) error {
	if n != db.writer.Load() {
		return fmt.Errorf("%w: writes have moved away from %s", ErrNotPrimary, n.name)
	}
	return db.divided()
}

// writesTo returns the node that writes go to, and why none may be sent there. As with acquireWrite, a process that has just
// been started first looks at all nodes.
func (db *DB) writesTo(ctx context.Context) (*node, error) {
	if s := db.snap.Load(); s != nil && !s.settled {
		if _, err := db.settle(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := db.divided(); err != nil {
		return nil, err
	}
	n := db.writer.Load()
	return n, n.barred()
}

// explain says what an error of the statement means.
func (s statement) explain(err error) error {
	if err == nil {
		return s.db.overtaken(s.node)
	}
	if sqlState(err) == stateReadOnly {
		switch {
		case s.refused != nil:
			return fmt.Errorf("dbsplit: write refused: %w (%w)", s.refused, err)
		case s.standby():
			return fmt.Errorf("%w: %w", ErrNotPrimary, err)
		}
	}
	return s.server().explainStatement(writeError(err, s.conn.Conn().IsClosed(), s.refused == nil))
}

// Exec runs a statement on the primary. It is sent once more only when it has certainly done nothing: the server was a
// standby, or it was never sent.
func (db *DB) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) {
	w := succession{db: db}
	for {
		s, err := w.begin(ctx)
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		tag, err := s.exec(ctx, sql, arguments)
		if !w.again(ctx, s, err) {
			return tag, err
		}
	}
}

func (s statement) exec(ctx context.Context, sql string, arguments []any) (pgconn.CommandTag, error) {
	defer s.conn.Release()
	tag, err := s.conn.Exec(ctx, sql, arguments...)
	return tag, s.explain(err)
}

// Query runs a statement on the primary, and sends it once more in the cases in which Exec does. As with pgx, the error may
// be left to the rows.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows := &writeRows{succession: succession{db: db}, ctx: ctx, sql: sql, args: args, owned: true}
	if err := rows.send(); err != nil {
		return errRows{err: err}, err
	}
	return rows, nil
}

// QueryRow runs a statement on the primary that returns at most one row, and sends it once more in the cases in which Exec
// does.
func (db *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	row := &writeRow{succession: succession{db: db}, ctx: ctx, sql: sql, args: args, owned: true}
	if err := row.send(); err != nil {
		return errRow{err: err}
	}
	return row
}

// SendBatch sends a batch to the primary. Its statements are one transaction, unless it says otherwise. One that begins a
// transaction, with Batch.BeginTx, is refused while the gate refuses writes.
func (db *DB) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	s, err := db.begin(ctx)
	if err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	results := &writeBatch{statement: s}
	switch special := s.refused != nil || db.opts.FenceLock != 0; {
	case !special || !begins(b):
		results.BatchResults = s.conn.SendBatch(ctx, b)
	case s.refused != nil:
		s.conn.Release()
		return pgx.FailedBatchResults(b, refusal(s.refused))
	default:
		results.BatchResults = s.conn.sendBegun(ctx, b, db.fence())
	}
	if tx := results.BatchResults.Tx(); tx != nil {
		results.tx = &writeTx{Tx: tx, statement: s, watermark: scaleaware.WatermarkFrom(ctx)}
		results.node = nil // its commit tells
	}
	return results
}

// CopyFrom copies rows into a table of the primary.
func (db *DB) CopyFrom(ctx context.Context, tableName pgx.Identifier, columnNames []string, rowSrc pgx.CopyFromSource) (int64, error) {
	if err := db.allow(ctx); err != nil {
		return 0, refusal(err)
	}
	conn, node, err := (&succession{db: db}).acquireWrite(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	n, err := conn.CopyFrom(ctx, tableName, columnNames, rowSrc)
	return n, statement{conn: guarded{poolConn: conn}, db: db, node: node}.explain(err)
}

func refusal(gate error) error { return &gateError{gate} }

// gateError is the gate's refusal.
type gateError struct{ gate error }

func (e *gateError) Error() string { return "dbsplit: write refused: " + e.gate.Error() }
func (e *gateError) Unwrap() error { return e.gate }

// Ping checks that the primary answers. It does not wait for a failover.
func (db *DB) Ping(ctx context.Context) error {
	s, err := (&succession{db: db, impatient: true}).begin(ctx)
	if err != nil {
		return err
	}
	defer s.conn.Release()
	return s.conn.Ping(ctx)
}

// Acquire returns a connection to the primary, which the caller must Release. While the gate refuses writes it is
// a read-only one.
func (db *DB) Acquire(ctx context.Context) (*pgxpool.Conn, error) {
	s, err := db.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.bare(); err != nil {
		s.conn.Release()
		return nil, err
	}
	return s.conn.poolConn, nil
}

// bare returns an error when whoever gets the connection itself could write, although the gate refuses that.
func (s statement) bare() error {
	if !s.conn.each {
		return nil
	}
	return fmt.Errorf("%w (a connection through a pooler in transaction mode cannot be read-only)", refusal(s.refused))
}

// AcquireFunc calls f with a connection from Acquire and releases it.
func (db *DB) AcquireFunc(ctx context.Context, f func(*pgxpool.Conn) error) error {
	conn, err := db.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return f(conn)
}

// AcquireAllIdle returns the idle connections of the writing pool: none while the gate refuses writes, or nobody can tell
// which server is the primary.
func (db *DB) AcquireAllIdle(ctx context.Context) []*pgxpool.Conn {
	if db.allow(ctx) != nil {
		return nil
	}
	n, err := db.writesTo(ctx)
	if err != nil {
		return nil
	}
	p := n.writes.Load()
	if p == nil {
		return nil // the writer has just moved
	}
	conns := p.AcquireAllIdle(ctx)
	p.tracer.usage.add(int64(len(conns)), db.now())    // no tracer sees them before they are given back
	if db.writer.Load() == n && db.allow(ctx) == nil { // asked again, as acquireWrite does
		return conns
	}
	for _, c := range conns {
		c.Release()
	}
	return nil
}

// Stat returns the statistics of the writing pool.
func (db *DB) Stat() *pgxpool.Stat { return db.writes().Stat() }

// Config returns a copy of the writing pool's configuration. It holds the password.
func (db *DB) Config() *pgxpool.Config { return db.writes().Config() }

// Reset closes the connections of all pools: idle ones now, the others when they are given back.
func (db *DB) Reset() {
	db.eachPool(func(_ *node, _ string, p *pool) { p.Reset() })
}

func (db *DB) writes() *pool {
	for {
		if p := db.writer.Load().writes.Load(); p != nil {
			return p
		}
	}
}
