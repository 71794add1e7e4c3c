package dbsplit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

// visitor is a connection on which an operation looks at one node.
type visitor interface {
	querier
	Begin(ctx context.Context) (pgx.Tx, error)
}

// visit opens a connection to n for one operation, which closes it with leave: a pool whose connections are all in use is
// what an operator looks into, and cannot wait for. Nothing is prepared, so it works through a pooler as well. When the
// server takes no more connections, one that is idle in the pool serves. ctx has to have a deadline, such as nodeTimeout.
func (db *DB) visit(ctx context.Context, n *node) (v visitor, leave func(), err error) {
	if err := n.barred(); err != nil {
		return nil, nil, err
	}
	if db.closed.Load() {
		return nil, nil, ErrClosed
	}
	c := n.config.ConnConfig.Copy()
	c.RuntimeParams["application_name"] += readsSuffix
	c.RuntimeParams["datestyle"] = "ISO" // without prepared statements times come as text
	if !n.pooled() {
		c.RuntimeParams[sessionReadOnly] = "on"
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, c)
	if err == nil {
		if !n.pooler.byTransaction() {
			err = makeRepeatable(ctx, conn.PgConn())
		}
		if err == nil {
			return conn, func() { hangUp(conn) }, nil
		}
		hangUp(conn)
		return nil, nil, err
	}
	if sqlState(err) == stateTooManyConnections {
		if pooled, poolErr := db.acquireRead(ctx, n); poolErr == nil {
			return pooled, pooled.Release, nil
		}
	}
	return nil, nil, n.explainConnect(err)
}

// trouble says why an operation could not look at a node. What the log alone should know is not in it.
func trouble(err error) string {
	switch state := sqlState(err); {
	case errors.Is(err, ErrPooler), errors.Is(err, ErrClosed):
		return err.Error()
	case state == stateTooManyConnections:
		return "the server takes no more connections from this role: end some sessions, or raise max_connections or the role's limit"
	case state == stateCannotConnectNow:
		return "the server is starting, stopping or recovering: call again in a moment"
	case state != "":
		return fmt.Sprintf("the server refused with SQLSTATE %s: see this service's log", state)
	case ranOut(err):
		return fmt.Sprintf("the node did not answer in time (at most %v): see this service's log", nodeTimeout)
	default:
		return "the node does not answer: see this service's log"
	}
}

// unreachable is for the caller of an operation that could not look at the primary.
func unreachable(err error) error {
	if errors.Is(err, ErrPooler) {
		return unavailable(err)
	}
	return admin.Unavailable(err, "%s, and GET the replication status", trouble(err))
}
