package dbsplit

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// What callers branch on. All are found with errors.Is; the server's own error stays reachable with errors.As.
var (
	// ErrNoNode is returned by a read that no node may serve: the primary is down, and no replica is up that has
	// what the read asks for.
	ErrNoNode = errors.New("dbsplit: no node can serve this read")
	// ErrLostWrite is returned, once for each position by each DB, by a read whose caller has written, or with MonotonicReads
	// seen, something that a promotion may have lost: its position lies beyond the end of its timeline. Other writes may have
	// moved that position up, so look whether this one is there. The same read goes on when it is called again.
	ErrLostWrite = errors.New("dbsplit: a promotion has lost writes, maybe this caller's: look whether they are there, and repeat them if not")
	// ErrOutcomeUnknown is returned by a write whose connection was lost after it was sent, or that was answered by a
	// primary which has been replaced meanwhile: it may have been committed. Nothing was sent again. Look for its effect
	// before you repeat it, or make it idempotent.
	ErrOutcomeUnknown = errors.New("dbsplit: outcome of the write is unknown, check for its effect before you send it again")
	// ErrWriteInRead is returned when a statement sent through Read tried to write. Nothing was written. Send it
	// through the DB itself.
	ErrWriteInRead = errors.New("dbsplit: a statement sent through Read tried to write, send it through the DB instead")
	// ErrNotPrimary is returned by a write when the server that should be the primary is in recovery, and by the commit of a
	// transaction that was begun on a server which is the primary no longer. Nothing was written. The pool moves as
	// soon as the monitor finds the promoted server.
	ErrNotPrimary = errors.New("dbsplit: the server is not, or no longer, the primary: wait for the failover to end, or correct Nodes.Primary")
	// ErrTwoPrimaries is returned by writes while several servers take writes on one timeline, or were promoted to one:
	// nobody can tell which of them is right, and what is written to the wrong one is lost. Nothing was written. Nodes says
	// which they are.
	ErrTwoPrimaries = errors.New("dbsplit: several servers take writes on one timeline, so none gets any: stop all but the true primary, and rebuild them as replicas")
	// ErrPooler is returned when a connection pooler stands before a node, such as PgBouncer, and the connection string does
	// not fit it. The text says what to add to the connection string. When it says that nothing was sent, or that the
	// connection was refused, nothing was.
	ErrPooler = errors.New("dbsplit: a connection pooler is in the way")
	// ErrSaturated is returned by a call that has waited Options.PoolWait for a connection while others had all of them.
	// Nothing was sent.
	ErrSaturated = errors.New("dbsplit: all connections of the pool are in use for too long: there is more to do than this pool, or this server, can bear")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("dbsplit: the DB is closed")
)

// SQLSTATEs that routing knows.
const (
	stateReadOnly           = "25006" // read_only_sql_transaction
	stateSerialization      = "40001" // on a standby: conflict with recovery
	stateUndefinedTable     = "42P01"
	stateUndefinedFunction  = "42883"
	stateNotSupported       = "0A000"
	statePrivilege          = "42501"
	stateLockNotAvailable   = "55P03"
	stateNotInPrerequisite  = "55000"
	stateDeadlock           = "40P01"
	stateCancelled          = "57014" // cancelled, or statement_timeout
	stateAdminShutdown      = "57P01"
	stateCrashShutdown      = "57P02"
	stateCannotConnectNow   = "57P03" // it starts, stops or recovers
	stateDatabaseDropped    = "57P04"
	stateTooManyConnections = "53300" // of the server, or of the role
	stateNoStatement        = "26000" // invalid_sql_statement_name
	stateDuplicateStatement = "42P05"
	stateProtocolViolation  = "08P01" // of PgBouncer: it refuses the connection
)

func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// lost reports whether err took the connection with it. closed is the connection's own opinion.
func lost(err error, closed bool) bool {
	if err == nil {
		return false
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return closed
	}
	// Severity is localised, SeverityUnlocalized is not, but PgBouncer sends the former only, in English.
	severity := cmp.Or(pgErr.SeverityUnlocalized, pgErr.Severity)
	return severity == "FATAL" || severity == "PANIC"
}

// conflicted reports whether a replica has cancelled a read because it conflicts with recovery. That is told from an application's
// serialization failure by where it happened: messages are localised.
func conflicted(err error, onReplica bool) bool {
	return onReplica && sqlState(err) == stateSerialization
}

// readRetry says whether a read that failed before its first row may be sent to another node. Somebody wanted a cancelled
// statement to end, and a dropped database is gone everywhere.
func readRetry(ctx context.Context, err error, closed, onReplica bool) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	switch sqlState(err) {
	case stateCancelled, stateDatabaseDropped:
		return false
	default:
		return conflicted(err, onReplica) || onReplica && refusedSerializable(err) || lost(err, closed)
	}
}

// writeError explains what a write's failure means, when its connection was open before it. sent is false when the
// session could not write.
//
// pgconn.SafeToRetry is believed except about "conn closed": in the simple protocol, which sends every COMMIT, pgx v5.12.0
// returns that error, marked as safe to retry, when the connection is lost while the answer is awaited.
func writeError(err error, closed, sent bool) error {
	safe := pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed)
	if sent && !safe && lost(err, closed) {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// explain says what a failed read means.
func (l *lease) explain(err error) error {
	if sqlState(err) == stateReadOnly {
		return fmt.Errorf("%w: %w", ErrWriteInRead, err)
	}
	return l.node.explainStatement(err)
}
