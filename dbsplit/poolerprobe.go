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
	prepared keeping
	again    time.Time

	bar    error // why nothing is sent to the node
	advice string
}

// keeping is whether a statement prepared through a pooler in transaction mode is known wherever it goes.
type keeping int

const (
	keepsUnknown keeping = iota
	keepsAll
	keepsNone
)

const (
	poolerRounds = 3
	// poolerRetry is when a pooler is looked at again whose mode could not be proven, or bars its node.
	poolerRetry = 10 * time.Second
)

// errTurnedAway is a pooler's way to refuse a connection: it lets it in, and ends it at the first statement.
var errTurnedAway = errors.New("dbsplit: the node takes no new connections at the moment")

// lookAgain repeats, from time to time, a search that has proven nothing, or that bars the node.
func (db *DB) lookAgain(ctx context.Context, n *node, conn *pgx.Conn) {
	if f := n.finding.Load(); f != nil && !f.again.IsZero() && time.Now().After(f.again) {
		_ = db.lookForPooler(ctx, n, conn) // the probe that follows fails too, and tells
	}
}

// lookForPooler finds out, once for each connection of the monitor and when lookAgain says so, what stands before n. It costs
// a direct connection one round trip.
func (db *DB) lookForPooler(ctx context.Context, n *node, conn *pgx.Conn) error {
	known := n.finding.Load()
	f, err := findPooler(ctx, n, conn)
	if err != nil && lost(err, conn.IsClosed()) && !ranOut(err) {
		return fmt.Errorf("%w: %w", errTurnedAway, err)
	}
	if err != nil {
		return err
	}
	if f.pooled && (f.mode == poolerNone || f.mode == poolerTransaction && f.prepared == keepsUnknown && n.names()) {
		f.again = time.Now().Add(poolerRetry)
		if known != nil && known.pooled && (f.mode == poolerNone || f.mode == known.mode) { // what was proven once is believed rather than nothing
			f.mode, f.prepared = known.mode, known.prepared
		}
	}
	n.weigh(&f)
	if f.bar != nil { // the pooler may be corrected, and keep the monitor's connection
		f.again = time.Now().Add(poolerRetry)
	}
	n.finding.Store(&f)
	if f.advice != "" && (known == nil || known.advice != f.advice) {
		db.opts.Logger.Warn("dbsplit: a connection string does not fit what stands before the node", "db", db.opts.Name,
			"node", n.name, "advice", f.advice, "refused", f.bar != nil)
	}
	return nil
}

// findPooler tells a pooler by the number of the server's process, which is not the one that the connection was given. A
// process that serves two connections by turns, or a connection that two processes serve by turns, proves that server
// connections are given back after each transaction. Two that each keep their own process, turn for turn, have sessions.
func findPooler(ctx context.Context, n *node, conn *pgx.Conn) (finding, error) {
	var pid uint32
	if err := n.asks(conn).QueryRow(ctx, "-- name: dbsplit_pooler\nselect pg_backend_pid()").Scan(&pid); err != nil {
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
	pair := [2]asker{{conn: conn}, {conn: other}}
	for range poolerRounds {
		if sure, err := f.round(ctx, n, &pair); sure || err != nil {
			return f, nil
		}
	}
	if f.mode == poolerNone {
		f.mode = poolerSession
	}
	return f, nil
}

// names reports whether statements with names are to go to n: whether they work there matters otherwise to nobody.
func (n *node) names() bool { return n.pooler == poolerNone || n.pooler == poolerPrepared }

// round asks both connections more than once, in an order that shows something whether the pooler hands out the process that
// it was given back last, or the one that is idle longest. It reports whether there is no more to find out.
func (f *finding) round(ctx context.Context, n *node, pair *[2]asker) (sure bool, err error) {
	name := ""
	if n.names() {
		name = "dbsplit_" + strconv.FormatUint(rand.Uint64(), 36)
	}
	defer func() {
		for _, a := range pair {
			a.forget(ctx, name)
		}
	}()
	byHand := make(map[uint32]bool) // the processes that one of the pair prepared the statement in
	for turn, i := range []int{0, 0, 1, 1, 0} {
		first, before := turn == 0 || turn == 2, pair[i].pid
		if err := pair[i].ask(ctx, name, first || name == ""); sqlState(err) == stateNoStatement || sqlState(err) == stateDuplicateStatement {
			f.mode, f.prepared = poolerTransaction, keepsNone
			return true, nil
		} else if err != nil {
			return false, err
		}
		pid := pair[i].pid
		if before != 0 && before != pid || pair[0].pid == pair[1].pid {
			f.mode = poolerTransaction
		}
		if name != "" && first == byHand[pid] { // prepared there twice, or never, and yet it works
			f.prepared = keepsAll
		}
		if f.mode == poolerTransaction && (f.prepared == keepsAll || name == "") {
			return true, nil
		}
		byHand[pid] = byHand[pid] || first
	}
	return false, nil
}

// asker asks for the process that serves a connection, by a prepared statement.
type asker struct {
	conn *pgx.Conn
	pid  uint32 // the last answer
}

// ask runs the statement, after preparing it in the same transaction, if it is to be prepared, so that one process does both.
func (a *asker) ask(ctx context.Context, name string, prepare bool) error {
	p := a.conn.PgConn().StartPipeline(ctx)
	defer p.Close()
	if prepare {
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
	breaks := mode == pgx.QueryExecModeDescribeExec || mode == pgx.QueryExecModeCacheStatement && f.prepared == keepsNone
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
