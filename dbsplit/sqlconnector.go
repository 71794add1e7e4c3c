package dbsplit

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Connector opens a *sql.DB, with sql.OpenDB, whose statements take the ways of a DB or of a Reader. It is what ent,
// gorm, bun, sqlx and goose build on.
//
// The *sql.DB belongs to the caller, who closes it before the DB. It has no connections to PostgreSQL of its own: each
// statement and each transaction takes one of the DB's, so the limits are those of Options, and SetMaxOpenConns and its
// like need not be called.
//
// Whatever has no context runs under context.Background, which has no watermark: use ExecContext, QueryContext and
// BeginTx.
type Connector struct {
	db     *DB
	reader *Reader // nil: the DB itself
}

// Connector returns a connector for everything: statements go to the primary, and transactions opened with
// sql.TxOptions.ReadOnly to a replica, as those of Read. Errors are the DB's own, and found with errors.Is; the one on which
// database/sql repeats what it has sent is never among them.
//
// A *sql.Conn is one session on the primary from its first statement until it is closed, so settings, temporary tables
// and advisory locks hold. Its read-only transactions are outside of that session. When writes move to another server it
// fails with ErrNotPrimary. While the gate refuses writes it fails with the gate's error, unless it was first used then:
// such a session stays read-only.
func (db *DB) Connector() *Connector { return &Connector{db: db} }

// Connector returns a connector that only reads: statements and all transactions go where the Reader's go, and writes
// fail with ErrWriteInRead. A *sql.Conn from it is no session: each statement outside a transaction may go to another
// node.
func (r *Reader) Connector() *Connector { return &Connector{db: r.db, reader: r} }

// Connect returns a connection for database/sql. It does no I/O: the first statement does.
func (c *Connector) Connect(context.Context) (driver.Conn, error) {
	if c.db.closed.Load() {
		return nil, ErrClosed
	}
	return &sqlConn{db: c.db, reader: c.reader}, nil
}

// Driver returns a driver that opens nothing by name.
func (c *Connector) Driver() driver.Driver { return sqlDriver{} }

type sqlDriver struct{}

func (sqlDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("dbsplit: connections are not opened by name, use sql.OpenDB with a Connector")
}

// RawConn calls f with the pgx connection behind conn, for what database/sql cannot do, such as COPY. It is that of the
// open transaction, or else of conn's session on the primary, and must not be used after f has returned. What it commits
// raises the watermark as statements do, but its errors are pgx's own. The connection of a Reader's Connector has none
// outside a transaction.
func RawConn(ctx context.Context, conn *sql.Conn, f func(*pgx.Conn) error) error {
	return conn.Raw(func(driverConn any) error {
		c, ok := driverConn.(*sqlConn)
		if !ok {
			return fmt.Errorf("dbsplit: RawConn got a %T, want a sql.Conn of a DB that a Connector has opened", driverConn)
		}
		raw, err := c.raw(ctx)
		if err != nil {
			return err
		}
		return f(raw)
	})
}
