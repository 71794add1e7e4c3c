package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
)

// rollbackTimeout bounds the rollback after a caller's context has ended.
const rollbackTimeout = 5 * time.Second

// Begin opens a transaction on the primary.
func (db *DB) Begin(ctx context.Context) (pgx.Tx, error) { return db.BeginTx(ctx, pgx.TxOptions{}) }

// BeginTx opens a transaction: on a replica when its access mode is pgx.ReadOnly, as Read does, and otherwise on the
// primary.
func (db *DB) BeginTx(ctx context.Context, txOptions pgx.TxOptions) (pgx.Tx, error) {
	if txOptions.AccessMode == pgx.ReadOnly {
		return db.reader.BeginTx(ctx, txOptions)
	}
	if err := db.allow(ctx); err != nil {
		return nil, refusal(err)
	}
	patience := succession{db: db}
	for {
		conn, node, err := patience.acquireWrite(ctx)
		if err != nil {
			return nil, err
		}
		tx, err := statement{conn: guarded{poolConn: conn}, db: db, node: node}.beginTx(ctx, txOptions)
		if err == nil {
			return tx, nil
		}
		died := lost(err, conn.Conn().IsClosed()) && ctx.Err() == nil
		conn.Release()
		if !died || !patience.wait(ctx, node, errors.Join(errBegin, err)) {
			return nil, err
		}
	}
}

// beginTx opens a transaction on the statement's connection, which is its own from then on.
func (s statement) beginTx(ctx context.Context, txOptions pgx.TxOptions) (*writeTx, error) {
	w := scaleaware.WatermarkFrom(ctx)
	w.Saw(s.db.asOf())
	if s.db.opts.FenceLock != 0 {
		txOptions = fenced(txOptions, s.db.fence())
	}
	idle := s.conn.Conn().PgConn().TxStatus() == 'I' // or else what fails is a mistake within a transaction of the caller's
	tx, err := s.conn.BeginTx(ctx, txOptions)
	if err != nil {
		if idle {
			s.abandon(ctx)
		}
		return nil, err
	}
	return &writeTx{Tx: tx, statement: s, watermark: w}, nil
}

// abandon ends what was begun when the rest of the first round trip failed: a sql.Conn goes on with the connection.
func (s statement) abandon(ctx context.Context) {
	conn := s.conn.Conn()
	if conn.IsClosed() || conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "rollback"); err != nil {
		hangUp(conn)
	}
}

// fence is the query that makes a transaction hold the fence's lock, shared, until its end.
func (db *DB) fence() string {
	return fmt.Sprintf("select pg_advisory_xact_lock_shared(%d)", db.opts.FenceLock)
}

// fenced makes fence part of a transaction's first round trip.
func fenced(o pgx.TxOptions, fence string) pgx.TxOptions {
	if o.BeginQuery == "" {
		o.BeginQuery = "begin"
		if o.IsoLevel != "" {
			o.BeginQuery += " isolation level " + string(o.IsoLevel)
		}
		if o.AccessMode != "" {
			o.BeginQuery += " " + string(o.AccessMode)
		}
		if o.DeferrableMode != "" {
			o.BeginQuery += " " + string(o.DeferrableMode)
		}
	}
	o.BeginQuery += "\n;" + fence // the newline ends a comment
	return o
}

// TxOption adjusts one transaction of InTx.
type TxOption func(*pgx.TxOptions)

// RemoteApply makes the commit wait until every synchronous standby has replayed it, so that reads there see it at once.
// Standbys that synchronous_standby_names does not name do not count. While one that is named is away, the commit waits for
// it.
func RemoteApply() TxOption {
	return func(o *pgx.TxOptions) { o.BeginQuery = "begin; set local synchronous_commit = remote_apply" }
}

// InTx runs f in a transaction on the primary and commits it, or rolls it back when f returns an error or panics. An
// error from f is returned as it is.
func (db *DB) InTx(ctx context.Context, f func(tx pgx.Tx) error, opts ...TxOption) error {
	var o pgx.TxOptions
	for _, adjust := range opts {
		adjust(&o)
	}
	tx, err := db.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	return inTx(ctx, tx, f)
}

// InReadTx runs f in a read-only transaction on a replica, chosen as Read does: all its statements see the same node.
func (db *DB) InReadTx(ctx context.Context, f func(tx pgx.Tx) error, opts ...ReadOption) error {
	tx, err := db.Read(opts...).Begin(ctx)
	if err != nil {
		return err
	}
	return inTx(ctx, tx, f)
}

func inTx(ctx context.Context, tx pgx.Tx, f func(tx pgx.Tx) error) error {
	done := false
	defer func() {
		if done {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // a failed rollback closes the connection, which rolls back as well
	}()
	if err := f(tx); err != nil {
		return err
	}
	done = true // whatever it returns, Commit ends the transaction
	return tx.Commit(ctx)
}

// writeTx is a transaction on the primary.
type writeTx struct {
	pgx.Tx
	statement
	watermark *scaleaware.Watermark
	kept      bool // the connection is somebody else's to release
	ended     bool
}

// Commit commits. An error that wraps ErrOutcomeUnknown means that the connection was lost before the answer came, or
// that writes have moved to another server before it did. If they had moved before, nothing is committed, and the error
// wraps ErrNotPrimary.
func (tx *writeTx) Commit(ctx context.Context) error {
	if tx.ended {
		return pgx.ErrTxClosed
	}
	if refused := tx.db.stillWriter(tx.node); refused != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Tx.Rollback(ctx) // a failed rollback closes the connection, which rolls back as well
		tx.end()
		return fmt.Errorf("%w: during the transaction, which was rolled back, so begin it again", refused)
	}
	open := !cut(tx.conn.Conn())
	err := tx.Tx.Commit(ctx)
	if open {
		err = tx.explain(err)
	}
	tx.watermark.RaiseFrom(tx.db)
	tx.end()
	return err
}

// Rollback rolls back, or does nothing after Commit.
func (tx *writeTx) Rollback(ctx context.Context) error {
	if tx.ended {
		return pgx.ErrTxClosed
	}
	err := tx.Tx.Rollback(ctx)
	tx.end()
	return err
}

func (tx *writeTx) end() {
	tx.ended = true
	if !tx.kept {
		tx.conn.Release()
	}
}

// readTx is a read-only transaction on any node.
type readTx struct {
	reads
	lease lease
	ended bool
}

func newReadTx(tx pgx.Tx, l lease) *readTx {
	r := &readTx{lease: l}
	r.reads = reads{tx, &r.lease}
	return r
}

func (tx *readTx) Commit(ctx context.Context) error {
	return tx.end(func() error { return tx.Tx.Commit(ctx) })
}

func (tx *readTx) Rollback(ctx context.Context) error {
	return tx.end(func() error { return tx.Tx.Rollback(ctx) })
}

func (tx *readTx) end(how func() error) error {
	if tx.ended {
		return pgx.ErrTxClosed
	}
	tx.ended = true
	err := how()
	tx.lease.give(err)
	return err
}

var errReadWrite = errors.New("dbsplit: Read opens read-only transactions only, open this one on the DB")
