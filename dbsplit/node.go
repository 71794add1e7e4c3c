package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// node is one server, whatever role it has at the moment.
type node struct {
	endpoint
	index  int
	reads  atomic.Pointer[pool] // its sessions are read-only, so a promoted replica takes no writes from readers
	writes atomic.Pointer[pool] // set while this node is the writer
	load   load
	lines  lines
	prompt chan struct{} // asks the monitor for a probe now
	gone   chan struct{} // closed when the node is removed
	sight  atomic.Pointer[sight]
	// identity and lacking are what the server said when the monitor last connected.
	identity atomic.Pointer[identity]
	lacking  lacks
	studied  time.Time // when its timeline's history was last asked for; its watcher's own
	budget   atomic.Pointer[budget]
	refuses  atomic.Bool // a primary that was seen to be read-only by its own settings
	strict   bool        // a standby where serializable is the default; its watcher's own
	// discovered says that Options.Discover named it, and so may take it out again.
	discovered bool
	// finding is nil before the monitor has looked for a pooler.
	finding atomic.Pointer[finding]
	served  [2][reasons]atomic.Pointer[prometheus.Counter]
}

// pool is a pgxpool.Pool with the tracer that watches it.
type pool struct {
	*pgxpool.Pool
	tracer  *tracer
	acquire prometheus.Observer // how long callers waited
	most    int64               // connections
	open    context.Context     //nolint:containedctx // ends when the pool is retired
	close   context.CancelFunc
}

// errRetired is what those get who wait for a connection of a pool that is closed: they turn to the one that has replaced it.
var errRetired = errors.New("dbsplit: the pool was closed, as another has replaced it or its node was removed")

// take acquires a connection for who has waited since begun, and says when it had it. Reading the clock is a good part of
// what a read costs above pgx, so whoever needs the time takes this one. w is a write's; reads have none.
func (p *pool) take(ctx context.Context, n *node, begun time.Duration, w *succession) (c *pgxpool.Conn, at time.Duration, err error) {
	c, err = p.await(ctx, n, begun, w)
	if err == nil {
		at = p.tracer.acquiredAt(c)
	} else {
		at = p.tracer.db.now()
	}
	p.acquire.Observe((at - begun).Seconds())
	return c, at, err
}

// await acquires a connection within PoolWait. While n is away, or not known yet and being connected to, it waits for
// longer: why it cannot be connected to is worth more. PoolWait begins once more when n is back.
func (p *pool) await(ctx context.Context, n *node, begun time.Duration, w *succession) (*pgxpool.Conn, error) {
	db := p.tracer.db
	if db.opts.PoolWait == 0 {
		return p.get(ctx, n, begun, w)
	}
	bounded, cancel := context.WithTimeout(ctx, db.opts.PoolWait)
	defer cancel()
	c, err := p.get(bounded, n, begun, w)
	if err == nil || bounded.Err() == nil || ctx.Err() != nil {
		return c, err
	}
	stat := p.Stat()
	waits := stat.AcquiredConns() < stat.MaxConns()
	if s := db.snap.Load(); s != nil && s.has(n) {
		waits = s.away(n)
	}
	if waits {
		longer, stop := context.WithCancel(ctx)
		defer stop()
		go db.endWait(longer, stop, n)
		c, err = p.get(longer, n, db.now(), w)
		if err == nil || longer.Err() == nil || ctx.Err() != nil {
			return c, err
		}
	}
	return nil, fmt.Errorf("%w: of %s, for %v", ErrSaturated, n.name, db.opts.PoolWait)
}

// get acquires a connection, at begun. Whoever has to wait for others' learns when the pool is retired, and a write when its patience
// with n ends: that costs something, so it is not prepared for where the pool has room and was used a moment ago. One that was idle may
// be asked whether it lives, and be closed, and keep its place meanwhile. While n is missing, an attempt to connect to it is part of
// the wait, too: it may hang for longer.
func (p *pool) get(ctx context.Context, n *node, begun time.Duration, w *succession) (*pgxpool.Conn, error) {
	t := p.tracer
	wanted := t.waiting.Add(1) // counted before it is compared, so of two callers one takes the last for free
	defer t.waiting.Add(-1)
	held, touched := t.usage.now()
	missing := w.waits() && w.db.missing(n)
	if wanted+held <= p.most && !missing && begun-touched < idleAfter {
		return p.Acquire(ctx)
	}
	patient, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(p.open, func() { end(errRetired) })()
	if missing {
		w.start()
	}
	var away chan time.Time
	if w.waits() {
		away = make(chan time.Time, 1)
		go func(until time.Time) { away <- w.watch(patient, end, n, until) }(w.until)
	}
	c, err := p.Acquire(patient)
	if err != nil && patient.Err() != nil && ctx.Err() == nil {
		err = context.Cause(patient)
	}
	if away != nil && (missing || w.db.missing(n)) {
		end(nil)
		w.until = <-away // what comes next is part of the same absence, if it lasts
	}
	return c, err
}

// endWait calls end PoolWait after n is back, unless ctx ends before. Without the monitor that is not known.
func (db *DB) endWait(ctx context.Context, end func(), n *node) {
	s := db.snap.Load()
	for ; s != nil && s.away(n); s = db.snap.Load() {
		select {
		case <-s.next:
		case <-ctx.Done():
			return
		}
	}
	if s == nil {
		return
	}
	timer := time.NewTimer(db.opts.PoolWait)
	defer timer.Stop()
	select {
	case <-timer.C:
		end()
	case <-ctx.Done():
	}
}

// away reports whether n does not answer. A server that refuses the monitor does.
func (s *snapshot) away(n *node) bool {
	if !s.has(n) {
		return false
	}
	v := &s.views[n.index]
	return !v.up && v.objection == ""
}

// served counts a read that has a connection, without a look-up by label values on the way.
func (db *DB) served(d *decision) {
	r, label := 0, rolePrimary.String()
	if d.onReplica {
		r, label = 1, roleReplica.String()
	}
	slot := &d.node.served[r][d.because]
	c := slot.Load()
	if c == nil {
		counter := db.in.reads.WithLabelValues(db.opts.Name, d.node.name, label, d.because.String())
		c = &counter
		slot.Store(c)
	}
	(*c).Inc()
	if d.token {
		db.in.token(tokenObeyed)
	}
}

// wake asks the monitor to probe n now.
func (db *DB) wake(n *node) {
	select {
	case n.prompt <- struct{}{}:
	default:
	}
}

// fail notes that a read lost its connection to n, so that the next reads avoid it until a probe that is sent
// from now on succeeds.
func (db *DB) fail(n *node) {
	n.load.doubt(db.now())
	if n.barred() == nil { // or else a probe changes nothing
		db.wake(n)
	}
}

// acquireRead takes a read-only connection to n.
func (db *DB) acquireRead(ctx context.Context, n *node) (guarded, error) {
	return db.acquireReadSince(ctx, n, db.now())
}

func (db *DB) acquireReadSince(ctx context.Context, n *node, begun time.Duration) (guarded, error) {
	if err := n.barred(); err != nil {
		return guarded{}, err
	}
	for {
		p := n.reads.Load()
		c, at, err := p.take(ctx, n, begun, nil)
		if err == nil {
			if err := n.barred(); err != nil { // found while this waited
				c.Release()
				return guarded{}, err
			}
			return guarded{poolConn: c, each: n.pooler.byTransaction(), since: at}, nil
		}
		if db.closed.Load() {
			return guarded{}, ErrClosed
		}
		if n.reads.Load() == p {
			return guarded{}, n.explainConnect(err)
		}
		if db.gaveUp(n) {
			return guarded{}, errSilent
		}
	}
}

func (db *DB) now() time.Duration { return time.Since(db.opened) }
