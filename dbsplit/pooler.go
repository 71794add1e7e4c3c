package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pooler is the mode of a connection pooler between us and a node, as its connection string declares it.
type pooler string

const (
	poolerNone        pooler = ""
	poolerSession     pooler = "session"
	poolerTransaction pooler = "transaction"
	// poolerPrepared is transaction mode with statements prepared by the pooler's own book-keeping.
	poolerPrepared pooler = "transaction-prepared"
)

// byTransaction reports whether a connection through the pooler keeps no session from one transaction to the next.
func (p pooler) byTransaction() bool { return p == poolerTransaction || p == poolerPrepared }

// sessionReadOnly is what makes every transaction of a session read-only. Servers report it by themselves.
const sessionReadOnly = "default_transaction_read_only"

// suit fits pgx's settings to the declared pooler. dsn is the string that they were parsed from.
func (e *endpoint) suit(dsn string) error {
	if e.pooler != poolerTransaction {
		return nil
	}
	c := e.config.ConnConfig
	given, err := pgconn.ParseConfig(dsn) // pgx has taken its own parameters out of e.config
	if err != nil {
		return errors.New("is no connection string: " + dsnMistake(err))
	}
	if _, chosen := given.RuntimeParams["default_query_exec_mode"]; !chosen {
		// Of the modes that are safe, this one encodes arguments and decodes results by the server's types, as the default
		// does: what works over a direct connection works here. Mode exec knows Go's types only.
		c.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		if c.DescriptionCacheCapacity <= 0 {
			c.DefaultQueryExecMode = pgx.QueryExecModeExec
		}
	}
	// A statement that asks for the mode by itself then fails in pgx, and is not sent.
	c.StatementCacheCapacity = 0
	switch {
	case c.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement, c.DefaultQueryExecMode == pgx.QueryExecModeDescribeExec:
		return fmt.Errorf("has node_pooler=transaction and a default_query_exec_mode that fails there: leave the latter out, or set cache_describe, exec or simple_protocol; "+
			"or, when the pooler keeps prepared statements (PgBouncer 1.21 or newer with max_prepared_statements), set node_pooler=%s and cache_statement", poolerPrepared)
	case c.DefaultQueryExecMode == pgx.QueryExecModeCacheDescribe && c.DescriptionCacheCapacity <= 0:
		return errors.New("has default_query_exec_mode=cache_describe without a cache: leave description_cache_capacity out")
	}
	return nil
}

// pooled reports whether a pooler stands before n, as far as is known.
func (n *node) pooled() bool {
	f := n.finding.Load()
	return n.pooler != poolerNone || f != nil && f.pooled
}

// inRecovery reports what conn's server says of itself. What a pooler says is from the day when it first connected to
// the server: that counts for nothing.
func (n *node) inRecovery(conn *pgconn.PgConn) bool { return !n.pooled() && inRecovery(conn) }

// readOnly makes the sessions of a pool of n read-only.
func (n *node) readOnly(c *pgxpool.Config) {
	switch n.pooler {
	case poolerNone:
		c.ConnConfig.RuntimeParams[sessionReadOnly] = "on"
		validateAlso(c, func(conn *pgconn.PgConn) error {
			if conn.ParameterStatus(sessionReadOnly) == "on" {
				return nil
			}
			return fmt.Errorf("%w: something before %s ignores the startup parameter %s, so writes sent through Read would succeed: %s",
				ErrPooler, n.name, sessionReadOnly, declare)
		})
	case poolerSession:
		// A pooler takes no startup parameter that it does not know. It resets the server connection when this one ends.
		after := c.AfterConnect
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if _, err := conn.Exec(ctx, "set "+sessionReadOnly+" = on"); err != nil {
				return fmt.Errorf("dbsplit: make a session of %s read-only: %w", n.name, err)
			}
			return after(ctx, conn)
		}
	default:
		// There is no session: see guarded.
	}
}

// validateAlso adds a check of new connections, which must not ask the server anything.
func validateAlso(c *pgxpool.Config, check func(conn *pgconn.PgConn) error) {
	before := c.ConnConfig.ValidateConnect
	c.ConnConfig.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		return check(conn)
	}
}

const declare = "if that is PgBouncer or another pooler, add node_pooler=transaction or node_pooler=session to the connection string, whichever is its mode"

// explainConnect says what it means that a pooler refused a connection. PgBouncer is the one that refuses startup
// parameters by this code: PostgreSQL knows them, or has another one.
func (n *node) explainConnect(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || errors.Is(err, ErrPooler) || pgErr.Code != stateProtocolViolation || !strings.Contains(pgErr.Message, "startup parameter") {
		return err
	}
	if strings.Contains(pgErr.Message, sessionReadOnly) {
		return fmt.Errorf("%w: %s takes no session parameters: %s: %w", ErrPooler, n.name, declare, err)
	}
	return fmt.Errorf("%w: %s does not take a parameter of the connection string: leave it out and set it for the role instead "+
		"(ALTER ROLE … SET), or add it to PgBouncer's ignore_startup_parameters: %w", ErrPooler, n.name, err)
}

// explainStatement says what it means that a server does not know a statement that was prepared, or knows one that was not:
// the other half of the conversation went to another of its processes. Repeating it would be a matter of luck.
func (n *node) explainStatement(err error) error {
	switch sqlState(err) {
	case stateNoStatement, stateDuplicateStatement:
	default:
		return err
	}
	if f := n.finding.Load(); f != nil && !f.pooled && n.pooler == poolerNone {
		return err // the program's own PREPARE, or DEALLOCATE
	}
	advice := declare
	if n.pooler.byTransaction() {
		advice = "set node_pooler=transaction and no default_query_exec_mode, and prepare no statements"
	}
	return fmt.Errorf("%w: prepared statements do not reach the server of %s reliably: %s: %w", ErrPooler, n.name, advice, err)
}

// silence reports whether a probe that failed with err, sent at that time, shows that n is silent, and since when at the least.
// Failures that speak end the connections that they concern by themselves, and a long statement may well go on.
//
// A pooler is different. A probe waits in its queue as long as everybody else, which shows nothing; and when it has lost its
// server, it keeps its clients waiting for another one, but takes no new ones.
func (n *node) silence(sent time.Time, err error, patience time.Duration) (since time.Time, silent bool) {
	if !n.pooled() {
		return sent, err != nil && ranOut(err)
	}
	if _, refused := errors.AsType[*pgconn.ConnectError](err); refused {
		return sent.Add(-patience), true
	}
	return sent.Add(-patience), errors.Is(err, errTurnedAway)
}

// sessionless returns an error when n gives no session that would keep its settings, or outlive a statement that is no
// transaction, such as VACUUM.
func (n *node) sessionless() error {
	if err := n.barred(); err != nil {
		return err
	}
	if f := n.finding.Load(); n.pooler.byTransaction() || f != nil && f.mode == poolerTransaction {
		return fmt.Errorf("%w: this operation needs a session of its own, which the pooler before %s gives nobody in transaction mode: "+
			"run it from a process whose Nodes.Primary is the server's own address", ErrPooler, n.name)
	}
	return nil
}

// prepareSession changes settings of a session that could not be given them as startup parameters, and asks whether
// its server is in recovery.
func prepareSession(ctx context.Context, conn *pgx.Conn, settings map[string]string) (recovering bool, err error) {
	for name, value := range settings {
		if _, err := conn.Exec(ctx, "select set_config($1, $2, false)", name, value); err != nil {
			return false, fmt.Errorf("dbsplit: set %s: %w", name, err)
		}
	}
	err = conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovering)
	return recovering, err
}

// server is the node that s was sent to, as far as is known.
func (s statement) server() *node {
	if s.node == nil {
		return s.db.writer.Load()
	}
	return s.node
}

// standby reports whether the node that refused s as read-only is in recovery. Behind a pooler it has to be asked.
func (s statement) standby() bool {
	n := s.server()
	if !n.pooled() {
		return inRecovery(s.conn.Conn().PgConn())
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.db.opts.ProbeTimeout)
	defer cancel()
	_, err := s.db.sample(ctx, n, time.Now())
	if errors.Is(err, errNoMonitor) {
		_, err = s.db.askPosition(ctx)
	}
	return errors.Is(err, ErrNotPrimary) || n != s.db.writer.Load()
}
