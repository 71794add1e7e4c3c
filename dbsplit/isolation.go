package dbsplit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A standby has no serializable transactions. Where that is the default (default_transaction_isolation of the server, the
// database or the role), it refuses with 0A000 even the simplest query.

// refusedSerializable reports whether a standby has refused to begin a serializable transaction. Nothing of that has run; what
// came before it in a string of several statements has. Messages are localised; the names of the server's functions are not.
func refusedSerializable(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != stateNotSupported {
		return false
	}
	switch pgErr.Routine {
	case "GetSerializableTransactionSnapshot", "call_enum_check_hook": // by default, and by BEGIN or SET TRANSACTION
		return true
	default:
		return false
	}
}

// repeatable makes the sessions of a pool of reads repeatable on a standby where serializable is the default, as the server's own
// hint says. It costs a round trip for each connection to a standby. A pooler in transaction mode keeps no such setting.
func (n *node) repeatable(c *pgxpool.Config) {
	if n.pooler.byTransaction() {
		return
	}
	after := c.AfterConnect
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if n.pooler != poolerNone || inRecovery(conn.PgConn()) {
			if err := makeRepeatable(ctx, conn.PgConn()); err != nil {
				return fmt.Errorf("dbsplit: isolation of a session of %s: %w", n.name, err)
			}
		}
		return after(ctx, conn)
	}
}

func makeRepeatable(ctx context.Context, conn *pgconn.PgConn) error {
	shown, err := conn.Exec(ctx, "show in_hot_standby; show default_transaction_isolation").ReadAll() // takes no snapshot
	if err != nil || string(shown[0].Rows[0][0]) != "on" || string(shown[1].Rows[0][0]) != "serializable" {
		return err
	}
	_, err = conn.Exec(ctx, "set default_transaction_isolation = 'repeatable read'").ReadAll()
	return err
}

// probe asks n where it is: in a transaction of its own where a plain query was refused, as that takes the server, and who waits
// for a token, a third longer.
func (n *node) probe(ctx context.Context, conn *pgx.Conn) (position, error) {
	if !n.strict {
		p, err := probe(ctx, conn)
		if !refusedSerializable(err) {
			return p, err
		}
		n.strict = true
	}
	return probe(ctx, n.asks(conn))
}

// asks is what asks over the monitor's connection to n. A declared pooler in transaction mode gives reads no session that
// could be made repeatable, so the monitor has to find what they would.
func (n *node) asks(conn *pgx.Conn) rowQuerier {
	if n.pooler.byTransaction() {
		return conn
	}
	return apart{conn}
}

// apart is a connection whose queries are transactions of their own, each in one round trip, that do not depend on the
// default isolation. Nothing is set that another client of an undeclared pooler could find.
type apart struct{ conn *pgx.Conn }

func (a apart) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	b := new(pgx.Batch)
	b.Queue("begin isolation level repeatable read")
	b.Queue(sql, args...)
	b.Queue("commit")
	return apartRow{a.conn.SendBatch(ctx, b)}
}

type apartRow struct{ results pgx.BatchResults }

func (r apartRow) Scan(dest ...any) error {
	_, err := r.results.Exec()
	if err == nil {
		err = r.results.QueryRow().Scan(dest...)
	}
	if end := r.results.Close(); err == nil {
		err = end
	}
	return err
}
