package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// finding is what the monitor has found out about a pooler before a node.
type finding struct {
	pooled   bool
	mode     pooler // poolerNone: not proven; never poolerPrepared
	prepared bool   // in transaction mode: a statement prepared here is known wherever it goes
	again    time.Time

	bar    error // why nothing is sent to the node
	advice string
}

const (
	poolerRounds = 3
	// poolerRetry is when a pooler whose mode could not be proven is looked at again.
	poolerRetry = 10 * time.Second
)

// errTurnedAway is a pooler's way to refuse a connection: it lets it in, and ends it at the first statement.
var errTurnedAway = errors.New("dbsplit: the node takes no new connections at the moment")

// lookAgain repeats, from time to time, a search that has proven nothing.
func (db *DB) lookAgain(ctx context.Context, n *node, conn *pgx.Conn) {
	if f := n.finding.Load(); f != nil && !f.again.IsZero() && time.Now().After(f.again) {
		_ = db.lookForPooler(ctx, n, conn) // the probe that follows fails too, and tells
	}
}

// lookForPooler finds out, once for each connection of the monitor, what stands before n. It costs a direct connection
// one round trip.
func (db *DB) lookForPooler(ctx context.Context, n *node, conn *pgx.Conn) error {
	known := n.finding.Load()
	f, err := findPooler(ctx, n, conn)
	if err != nil && lost(err, conn.IsClosed()) && !ranOut(err) {
		return fmt.Errorf("%w: %w", errTurnedAway, err)
	}
	if err != nil {
		return err
	}
	if f.pooled && f.mode == poolerNone {
		f.again = time.Now().Add(poolerRetry)
		if known != nil && known.pooled { // what was proven once is believed rather than nothing
			f.mode, f.prepared = known.mode, known.prepared
		}
	}
	n.weigh(&f)
	n.finding.Store(&f)
	if f.advice != "" && (known == nil || known.advice != f.advice) {
		db.opts.Logger.Warn("dbsplit: a connection string does not fit what stands before the node", "db", db.opts.Name,
			"node", n.name, "advice", f.advice, "refused", f.bar != nil)
	}
	return nil
}

// findPooler tells a pooler by the number of the server's process, which is not the one that the connection was given. A
// process that serves two connections by turns, or a connection that two processes serve by turns, proves that server
// connections are given back after each transaction. PgBouncer hands out first what it was given back last, so two that
// each keep their own process, turn for turn, have sessions.
func findPooler(ctx context.Context, n *node, conn *pgx.Conn) (finding, error) {
	var pid uint32
	if err := conn.QueryRow(ctx, "-- name: dbsplit_pooler\nselect pg_backend_pid()").Scan(&pid); err != nil {
		return finding{}, fmt.Errorf("dbsplit: look for a pooler before %s: %w", n.name, err)
	}
	if pid == conn.PgConn().PID() {
		return finding{}, nil
	}
	f := finding{pooled: true}
	budget := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		budget = time.Until(deadline) / 2 // where every server connection is taken, the second client waits
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	other, err := pgx.ConnectConfig(ctx, conn.Config())
	if err != nil {
		return f, nil
	}
	defer hangUp(other)
	name := "" // whether others work matters to nobody
	if n.pooler == poolerNone || n.pooler == poolerPrepared {
		name = "dbsplit_" + strconv.FormatUint(rand.Uint64(), 36)
	}
	pair := [2]asker{{conn: conn}, {conn: other}}
	defer func() {
		for _, a := range pair {
			a.forget(ctx, name)
		}
	}()
	for range poolerRounds {
		for i := range pair {
			before := pair[i].pid
			switch err := pair[i].ask(ctx, name); {
			case sqlState(err) == stateNoStatement || sqlState(err) == stateDuplicateStatement:
				f.mode = poolerTransaction
				return f, nil
			case err != nil:
				return f, nil
			case before != 0 && before != pair[i].pid, pair[0].pid == pair[1].pid:
				f.mode, f.prepared = poolerTransaction, true
				return f, nil
			}
		}
	}
	f.mode = poolerSession
	return f, nil
}

// asker asks for the process that serves a connection, by a prepared statement.
type asker struct {
	conn *pgx.Conn
	pid  uint32 // the last answer; 0: not prepared yet
}

// ask prepares the statement, the first time, and runs it in the same transaction, so that one process does both.
func (a *asker) ask(ctx context.Context, name string) error {
	p := a.conn.PgConn().StartPipeline(ctx)
	defer p.Close()
	if a.pid == 0 || name == "" {
		p.SendPrepare(name, "select pg_backend_pid()", nil)
	}
	p.SendQueryPrepared(name, nil, nil, nil)
	if err := p.Sync(); err != nil {
		return err
	}
	for {
		r, err := p.GetResults()
		if err != nil {
			return err
		}
		switch r := r.(type) {
		case *pgconn.ResultReader:
			result := r.Read()
			if result.Err != nil {
				return result.Err
			}
			if len(result.Rows) != 1 {
				return errors.New("dbsplit: the server's process has no number")
			}
			pid, err := strconv.ParseUint(string(result.Rows[0][0]), 10, 32)
			if err != nil {
				return err
			}
			a.pid = uint32(pid)
		case *pgconn.StatementDescription:
		default:
			return nil // the Sync
		}
	}
}

// forget removes the statement where it is likely to be. It is no error when it is not there.
func (a *asker) forget(ctx context.Context, name string) {
	if name != "" && !a.conn.IsClosed() {
		_ = a.conn.PgConn().Deallocate(ctx, name)
	}
}

// weigh says what a finding means for the connection string.
func (n *node) weigh(f *finding) {
	mode := n.config.ConnConfig.DefaultQueryExecMode
	breaks := mode == pgx.QueryExecModeDescribeExec || mode == pgx.QueryExecModeCacheStatement && !f.prepared
	bar := func(advice string) {
		f.advice = advice
		f.bar = fmt.Errorf("%w: nothing was sent to %s: %s", ErrPooler, n.name, advice)
	}
	switch {
	case !f.pooled && n.pooler != poolerNone:
		f.advice = "its connection string declares a pooler, but none is there: take node_pooler out"
	case f.mode == poolerTransaction && n.pooler == poolerSession:
		bar("its connection string declares a pooler in session mode, but it is in transaction mode: say node_pooler=transaction")
	case f.mode == poolerTransaction && n.pooler == poolerPrepared && breaks:
		bar("its pooler does not keep prepared statements: say node_pooler=transaction and no default_query_exec_mode, or set max_prepared_statements in PgBouncer 1.21 or newer")
	case f.mode == poolerTransaction && n.pooler == poolerNone && breaks:
		bar("a pooler in transaction mode stands before it, where prepared statements fail: add node_pooler=transaction to its connection string")
	case f.mode == poolerTransaction && n.pooler == poolerNone:
		f.advice = "a pooler in transaction mode stands before it: add node_pooler=transaction to its connection string"
	case f.mode == poolerSession && n.pooler == poolerNone:
		f.advice = "a pooler in session mode stands before it: add node_pooler=session to its connection string"
	case f.mode == poolerSession && n.pooler.byTransaction():
		f.advice = "its pooler seems to be in session mode: say node_pooler=session, and reads cost less"
	case f.pooled && n.pooler == poolerNone:
		f.advice = "a pooler stands before it, whose mode is not proven: add node_pooler=transaction or node_pooler=session to its connection string"
	}
}

// barred returns why nothing may be sent to n, or nil.
func (n *node) barred() error {
	if f := n.finding.Load(); f != nil {
		return f.bar
	}
	return nil
}

// counsel is the advice on n, of which the graver comes first.
func (n *node) counsel(other string) string {
	f := n.finding.Load()
	if f == nil || f.bar == nil && other != "" {
		return other
	}
	if f.advice == "" {
		return other
	}
	return f.advice
}
