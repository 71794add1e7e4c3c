package dbsplit

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware"
)

// sqlConn is what database/sql pools. It holds a connection to the primary from its first statement until database/sql
// puts it back, so an idle one costs nothing, and a sql.Conn is a session. database/sql never uses one twice at once.
type sqlConn struct {
	db      *DB
	reader  *Reader   // not nil: everything goes there, and nothing is held
	session statement // no conn: nothing is held
	writer  *node     // the primary when session began
	tx      *sqlTx    // the open transaction
}

var (
	_ driver.Conn               = (*sqlConn)(nil)
	_ driver.ConnBeginTx        = (*sqlConn)(nil)
	_ driver.ConnPrepareContext = (*sqlConn)(nil)
	_ driver.ExecerContext      = (*sqlConn)(nil)
	_ driver.QueryerContext     = (*sqlConn)(nil)
	_ driver.Pinger             = (*sqlConn)(nil)
	_ driver.NamedValueChecker  = (*sqlConn)(nil)
	_ driver.SessionResetter    = (*sqlConn)(nil)
	_ driver.Validator          = (*sqlConn)(nil)
)

// hold returns the session for one more statement, and begins it with the first one, with w's patience.
func (c *sqlConn) hold(ctx context.Context, w *succession) (statement, error) {
	if c.session.conn.poolConn == nil {
		writer := c.db.writer.Load()
		s, err := w.begin(ctx)
		if err != nil {
			return statement{}, err
		}
		if s.node != nil {
			writer = s.node
		}
		c.session, c.writer = s, writer
		return s, nil
	}
	s := c.session
	switch {
	case cut(s.conn.Conn()):
		return statement{}, errors.New("dbsplit: the session of this sql.Conn was lost before: close it and take another one")
	case c.writer != c.db.writer.Load():
		return statement{}, fmt.Errorf("%w: writes have moved away from %s since this sql.Conn was first used: close it and take another one", ErrNotPrimary, c.writer.name)
	case s.refused == nil:
		if err := c.db.allow(ctx); err != nil {
			return statement{}, refusal(err)
		}
	}
	scaleaware.WatermarkFrom(ctx).Saw(c.db.asOf())
	return s, nil
}

// release ends the session, and what is left of a transaction.
func (c *sqlConn) release() {
	if c.tx != nil {
		_ = c.tx.Rollback() // a failed rollback closes the connection, which rolls back as well
	}
	if c.session.conn.poolConn != nil {
		c.session.conn.Release()
		c.session, c.writer = statement{}, nil
	}
}

func (c *sqlConn) exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	switch {
	case c.tx != nil:
		tag, err := c.tx.inner.Exec(ctx, sql, args...)
		return tag, err
	case c.reader != nil:
		return c.reader.Exec(ctx, sql, args...)
	}
	w := succession{db: c.db}
	for {
		first := c.session.conn.poolConn == nil
		s, err := c.hold(ctx, &w)
		if err != nil {
			return pgconn.CommandTag{}, err
		}
		tag, err := s.conn.Exec(ctx, sql, args...)
		err = s.explain(err)
		if !first || !c.again(ctx, &w, err) {
			return tag, err
		}
	}
}

// again reports whether the session's first statement, which failed with err, may be sent once more, as DB.Exec does, in
// another session then. Later ones may not: they count on what was before.
func (c *sqlConn) again(ctx context.Context, w *succession, err error) bool {
	if !w.again(ctx, c.session, err) {
		return false
	}
	c.release()
	return true
}

func (c *sqlConn) query(ctx context.Context, w *succession, sql string, args ...any) (pgx.Rows, error) {
	switch {
	case c.tx != nil:
		return c.tx.inner.Query(ctx, sql, args...)
	case c.reader != nil:
		return c.reader.Query(ctx, sql, args...)
	}
	s, err := c.hold(ctx, w)
	if err != nil {
		return nil, err
	}
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, s.explain(err)
	}
	return &writeRows{Rows: rows, statement: s}, nil
}

// raw returns the connection that the next statement would use.
func (c *sqlConn) raw(ctx context.Context) (*pgx.Conn, error) {
	switch {
	case c.tx != nil:
		return c.tx.inner.Conn(), nil
	case c.reader != nil:
		return nil, errors.New("dbsplit: RawConn outside a transaction of a connector that only reads: each statement may go to another node, begin a transaction")
	}
	s, err := c.hold(ctx, &succession{db: c.db})
	if err != nil {
		return nil, err
	}
	if err := s.bare(); err != nil {
		return nil, err
	}
	return s.conn.Conn(), nil
}

func (c *sqlConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	tag, err := c.exec(ctx, query, values(nil, args)...)
	if err != nil {
		return nil, err
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

// QueryContext reads up to the first row: database/sql asks for the columns at once, and an error is told before any
// row, as is the replacement of a replica that failed.
func (c *sqlConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	arguments := values([]any{sqlFormats}, args)
	w := succession{db: c.db}
	for {
		first := c.tx == nil && c.reader == nil && c.session.conn.poolConn == nil
		rows, err := c.query(ctx, &w, query, arguments...)
		if err == nil {
			more := rows.Next()
			if err = rows.Err(); err == nil {
				return &sqlRows{rows: rows, more: more, ahead: true}, nil
			}
			rows.Close()
		}
		if !first || !c.again(ctx, &w, err) {
			return nil, err
		}
	}
}

// PrepareContext remembers the text. pgx prepares it on each connection that it is sent over, so it survives a
// failover, and its mistakes are told when it is used.
func (c *sqlConn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return &sqlStmt{conn: c, text: query}, nil
}

func (c *sqlConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *sqlConn) Ping(ctx context.Context) error {
	_, err := c.exec(ctx, "-- ping")
	return err
}

// CheckNamedValue leaves values to pgx, which knows more types than database/sql, and how to send them.
func (c *sqlConn) CheckNamedValue(v *driver.NamedValue) error {
	if v.Name != "" {
		return fmt.Errorf("dbsplit: parameter %q has a name: use positions like $1, or pass pgx.NamedArgs", v.Name)
	}
	return nil
}

// ResetSession does nothing: the session has ended in IsValid.
func (c *sqlConn) ResetSession(context.Context) error { return nil }

// IsValid is what database/sql calls when it puts the connection back.
func (c *sqlConn) IsValid() bool {
	c.release()
	return true
}

func (c *sqlConn) Close() error {
	c.release()
	return nil
}

// values puts args after before.
func values(before []any, args []driver.NamedValue) []any {
	for _, a := range args {
		before = append(before, a.Value)
	}
	return before
}
