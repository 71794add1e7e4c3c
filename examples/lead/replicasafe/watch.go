package replicasafe

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// watch is a driver.Connector whose sessions tell what locks each statement has taken. An observer looks from another
// session while the statement's transaction is still open.
type watch struct {
	driver.Connector
	observer   *pgx.Conn
	statements []Statement
}

func (w *watch) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &watched{Conn: conn.(*stdlib.Conn), watch: w, held: map[Lock]bool{}}, nil
}

// watched is one session. database/sql uses it from one goroutine at a time, and migrations run one statement at a time.
type watched struct {
	*stdlib.Conn
	watch *watch
	inTx  bool
	held  map[Lock]bool // by the open transaction
}

func (c *watched) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	c.inTx = true
	return watchedTx{tx, c}, nil
}

type watchedTx struct {
	driver.Tx
	conn *watched
}

func (t watchedTx) Commit() error   { t.conn.ended(); return t.Tx.Commit() }
func (t watchedTx) Rollback() error { t.conn.ended(); return t.Tx.Rollback() }

func (c *watched) ended() {
	c.inTx = false
	clear(c.held)
}

// ExecContext runs a statement that has no transaction around it in one of its own, as PostgreSQL itself does, so that its
// locks can be seen, unless it is of those that PostgreSQL refuses there.
func (c *watched) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	if c.inTx {
		return c.exec(ctx, sql, args)
	}
	tx, err := c.BeginTx(ctx, driver.TxOptions{})
	if err != nil {
		return nil, err
	}
	result, err := c.exec(ctx, sql, args)
	if err == nil {
		return result, tx.Commit()
	}
	if rollback := tx.Rollback(); rollback != nil {
		return nil, errors.Join(err, rollback)
	}
	const stateInTransaction = "25001"
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != stateInTransaction {
		return nil, err
	}
	c.watch.statements = append(c.watch.statements, Statement{SQL: brief(sql)})
	return c.Conn.ExecContext(ctx, sql, args)
}

func (c *watched) exec(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	s := Statement{SQL: brief(sql)}
	session := c.Conn.Conn()
	if err := session.QueryRow(ctx, `SELECT current_setting('lock_timeout')`).Scan(&s.LockTimeout); err != nil {
		return nil, err
	}
	result, err := c.Conn.ExecContext(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	rows, err := c.watch.observer.Query(ctx, `
		SELECT relation, mode FROM pg_locks
		WHERE pid = $1 AND locktype = 'relation' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		ORDER BY relation, mode`, session.PgConn().PID())
	if err != nil {
		return nil, err
	}
	locks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lock])
	if err != nil {
		return nil, err
	}
	for _, l := range locks {
		if !c.held[l] {
			c.held[l] = true
			s.Locks = append(s.Locks, l)
		}
	}
	c.watch.statements = append(c.watch.statements, s)
	return result, nil
}

// take returns what was run since it was last called.
func (w *watch) take() []Statement {
	taken := slices.Clone(w.statements)
	w.statements = nil
	return taken
}

const briefly = 120

// brief is a statement on one line, or its beginning.
func brief(sql string) string {
	line := strings.Join(strings.Fields(sql), " ")
	if runes := []rune(line); len(runes) > briefly {
		return string(runes[:briefly]) + " …"
	}
	return line
}
