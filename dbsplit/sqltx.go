package dbsplit

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// sqlTx is a transaction of database/sql.
type sqlTx struct {
	conn  *sqlConn
	ctx   context.Context //nolint:containedctx // of BeginTx: database/sql gives Commit none
	inner pgx.Tx
}

func (c *sqlConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx opens a transaction. One that is read-only has a connection of its own, the others have the session's.
func (c *sqlConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	level, err := isoLevel(opts.Isolation)
	if err != nil {
		return nil, err
	}
	reader := c.reader
	if reader == nil && opts.ReadOnly {
		reader = &c.db.reader
	}
	var tx pgx.Tx
	if reader != nil {
		tx, err = reader.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
	} else {
		tx, err = c.beginWrite(ctx, pgx.TxOptions{IsoLevel: level})
	}
	if err != nil {
		return nil, err
	}
	c.tx = &sqlTx{conn: c, ctx: ctx, inner: tx}
	return c.tx, nil
}

func (c *sqlConn) beginWrite(ctx context.Context, txOptions pgx.TxOptions) (pgx.Tx, error) {
	if err := c.db.allow(ctx); err != nil {
		return nil, refusal(err)
	}
	w := succession{db: c.db}
	for {
		first := c.session.conn.poolConn == nil
		s, err := c.hold(ctx, &w)
		if err != nil {
			return nil, err
		}
		if s.refused != nil {
			return nil, refusal(s.refused)
		}
		tx, err := s.beginTx(ctx, txOptions)
		if err == nil {
			tx.kept = true
			return tx, nil
		}
		if !first || ctx.Err() != nil || !lost(err, s.conn.Conn().IsClosed()) {
			return nil, err
		}
		c.release()
		if !w.wait(ctx, s.node, errors.Join(errBegin, err)) {
			return nil, err
		}
	}
}

func isoLevel(level driver.IsolationLevel) (pgx.TxIsoLevel, error) {
	switch sql.IsolationLevel(level) {
	case sql.LevelDefault:
		return "", nil
	case sql.LevelReadUncommitted:
		return pgx.ReadUncommitted, nil
	case sql.LevelReadCommitted:
		return pgx.ReadCommitted, nil
	case sql.LevelRepeatableRead, sql.LevelSnapshot:
		return pgx.RepeatableRead, nil
	case sql.LevelSerializable:
		return pgx.Serializable, nil
	default:
		return "", fmt.Errorf("dbsplit: PostgreSQL has no isolation level %v, use read committed, repeatable read or serializable", sql.IsolationLevel(level))
	}
}

func (t *sqlTx) Commit() error {
	t.conn.tx = nil
	return t.inner.Commit(t.ctx)
}

// Rollback is also what database/sql calls when the context of BeginTx has ended.
func (t *sqlTx) Rollback() error {
	t.conn.tx = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), rollbackTimeout)
	defer cancel()
	return t.inner.Rollback(ctx)
}
