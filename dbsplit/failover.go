package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// succession is one write's patience with a primary that is away, or that of a read which only a primary can answer.
type succession struct {
	db        *DB
	until     time.Time // zero before the first failure
	impatient bool      // waits for nobody
	resent    bool
}

// start begins the wait, if it has not begun.
func (w *succession) start() {
	if w.until.IsZero() {
		w.until = time.Now().Add(w.db.opts.FailoverWait)
	}
}

// wait waits, after a failure at which nothing can have been written, until there is a primary to try: another one than
// n, or n once it has answered the monitor as one again. It reports false when the patience is used up.
func (w *succession) wait(ctx context.Context, n *node, failed error) bool {
	db := w.db
	s := db.snap.Load()
	if s == nil || db.opts.FailoverWait < 0 || w.impatient || ctx.Err() != nil || !away(failed) {
		return false
	}
	now := time.Now()
	w.start()
	db.orphans.Add(1)
	defer db.orphans.Add(-1)
	for _, n := range db.members() {
		db.wake(n)
	}
	timer := time.NewTimer(w.until.Sub(now))
	defer timer.Stop()
	for {
		select {
		case <-s.next:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
		if s = db.snap.Load(); s == nil {
			return false // Run has ended
		}
		v := &s.views[s.writer]
		if db.writer.Load() != n || v.up && v.role == rolePrimary && v.sent.After(now) {
			return true
		}
	}
}

// errBegin marks the loss of a connection while a transaction was being opened.
var errBegin = errors.New("dbsplit: the connection was lost at BEGIN")

// away reports whether an error means that there is no primary at the other end, and that nothing was written.
func away(err error) bool {
	switch sqlState(err) {
	case stateAdminShutdown, stateCrashShutdown, stateCannotConnectNow: // here they ended a connect or a BEGIN
		return true
	case "":
		_, connecting := errors.AsType[*pgconn.ConnectError](err)
		return connecting || errors.Is(err, ErrNotPrimary) || errors.Is(err, errBegin) || errors.Is(err, errSilent) || pgconn.SafeToRetry(err)
	default:
		return errors.Is(err, ErrNotPrimary)
	}
}

// acquireWrite takes a connection from the writer's pool, wherever the writer and its pool are by now, and returns its
// node with it. A process that has just been started first looks at all nodes: its configuration may name a primary
// that lives on beside its promoted successor.
func (w *succession) acquireWrite(ctx context.Context) (*pgxpool.Conn, *node, error) {
	db := w.db
	if s := db.snap.Load(); s != nil && !s.settled {
		if _, err := db.settle(ctx, s); err != nil {
			return nil, nil, err
		}
	}
	w.confirm(ctx)
	for {
		n := db.writer.Load()
		if err := db.forbids(n); err != nil {
			return nil, nil, err
		}
		p := n.writes.Load()
		if p == nil {
			continue // the writer has just moved
		}
		c, _, err := p.take(ctx, n, db.now(), w)
		if err == nil {
			if db.writer.Load() != n {
				c.Release()
				continue
			}
			if err := db.forbids(n); err != nil { // found while this waited
				c.Release()
				return nil, nil, err
			}
			// Asked once more now that Writing counts the connection: whoever closes the gate and then reads 0 has
			// missed nobody.
			if err := db.allow(ctx); err != nil {
				c.Release()
				return nil, nil, refusal(err)
			}
			return c, n, nil
		}
		if db.closed.Load() {
			return nil, nil, ErrClosed
		}
		switch moved := db.writer.Load() != n || n.writes.Load() != p; {
		case moved:
		case errors.Is(err, errAbsent):
			return nil, nil, db.unwritable(n, ", and no other was there within FailoverWait")
		case !w.wait(ctx, n, err):
			return nil, nil, n.explainConnect(err)
		}
	}
}

// errAbsent ends the wait for a connection to a primary that was away for longer than the patience.
var errAbsent = errors.New("dbsplit: the primary was away for longer than FailoverWait")

// waits reports whether there is any patience: a read has none.
func (w *succession) waits() bool { return w != nil && !w.impatient && w.db.opts.FailoverWait >= 0 }

// watch ends a wait for a connection to n when n has been missing for too long: until then, if it is missing when the wait begins,
// and for FailoverWait from each time that it goes away meanwhile. When it is back, it is the pool that is waited for. Without the
// monitor nothing of that is known. It returns when the patience that has begun ends: zero when n is not missing in the end.
func (w *succession) watch(ctx context.Context, end context.CancelCauseFunc, n *node, until time.Time) time.Time {
	db := w.db
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s := db.snap.Load(); s != nil; s = db.snap.Load() {
		timer.Stop()
		switch {
		case !db.missing(n):
			until = time.Time{}
		case until.IsZero():
			until = time.Now().Add(db.opts.FailoverWait)
			fallthrough
		default:
			timer.Reset(time.Until(until))
		}
		select {
		case <-s.next:
		case <-timer.C:
			end(errAbsent)
			return until
		case <-ctx.Done():
			return until
		}
	}
	return time.Time{}
}

// unwritable says of n, which writes go to, why it takes none.
func (db *DB) unwritable(n *node, more string) error {
	return fmt.Errorf("dbsplit: primary %s does not take writes%s, bring it up or promote a replica: %w", n.name, more, db.monitor.reason(n.index))
}

// missing reports whether n, which writes go to, was no primary at the monitor's last look, or did not answer. A server that lets
// the monitor not in does answer: nothing hangs there.
func (db *DB) missing(n *node) bool {
	s := db.snap.Load()
	if s == nil || s.nodes[s.writer] != n {
		return false
	}
	v := &s.views[s.writer]
	return v.probed && v.objection == "" && !(v.up && v.role == rolePrimary)
}

// forbids returns why nothing must be written to n, though it may answer.
func (db *DB) forbids(n *node) error {
	if err := db.divided(); err != nil {
		return err
	}
	return n.barred()
}

// divided returns an error while it cannot be told which server is the primary.
func (db *DB) divided() error {
	s := db.snap.Load()
	if s == nil {
		return nil
	}
	if v := &s.views[s.writer]; v.contested || v.tied {
		return fmt.Errorf("%w: primary %s: %s", ErrTwoPrimaries, s.nodes[s.writer].name, v.advice(true))
	}
	return nil
}

// again reports whether a single statement that failed with err on s has certainly written nothing, and may be sent once
// more: a standby has refused it, or it never left this process.
func (w *succession) again(ctx context.Context, s statement, err error) bool {
	if err == nil || s.node == nil || s.refused != nil || w.resent {
		return false
	}
	w.resent = unwritten(err) && w.wait(ctx, s.node, err)
	return w.resent
}

// unwritten reports whether a statement that failed with err has certainly written nothing.
func unwritten(err error) bool {
	return errors.Is(err, ErrNotPrimary) || pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed)
}
