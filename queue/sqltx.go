package queue

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLExecer is the part of *sql.Tx that SQLTx needs.
type SQLExecer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// SQLTx makes a transaction of database/sql one that EnqueueTx takes. Its driver must be one of PostgreSQL with numbered
// parameters, as pgx's and lib/pq are.
func SQLTx(tx SQLExecer) Execer { return sqlTx{tx} }

type sqlTx struct{ tx SQLExecer }

// Exec implements Execer.
func (t sqlTx) Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error) {
	result, err := t.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	n, err := result.RowsAffected()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	return pgconn.NewCommandTag(fmt.Sprintf("INSERT 0 %d", n)), nil
}
