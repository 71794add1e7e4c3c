package dbsplit

import (
	"context"
	"database/sql/driver"
	"errors"
)

// sqlStmt is a prepared statement of database/sql.
type sqlStmt struct {
	conn *sqlConn
	text string
}

var (
	_ driver.StmtExecContext  = (*sqlStmt)(nil)
	_ driver.StmtQueryContext = (*sqlStmt)(nil)
)

func (s *sqlStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.text, args)
}

func (s *sqlStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.text, args)
}

// NumInput leaves it to the server to count the parameters.
func (s *sqlStmt) NumInput() int { return -1 }

func (s *sqlStmt) Close() error { return nil }

var errNoContext = errors.New("dbsplit: call the statement's ExecContext or QueryContext")

// Exec is there because driver.Stmt has it. database/sql does not call it.
func (s *sqlStmt) Exec([]driver.Value) (driver.Result, error) { return nil, errNoContext }

// Query is there because driver.Stmt has it. database/sql does not call it.
func (s *sqlStmt) Query([]driver.Value) (driver.Rows, error) { return nil, errNoContext }
