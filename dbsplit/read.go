package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware"
)

// maxTries is how often one read is sent: once, and once more to another node.
const maxTries = 2

// Reader sends statements to replicas, over read-only sessions. It takes sqlc's queries as the DB does.
type Reader struct {
	db *DB
	s  readSettings
}

type readSettings struct {
	bound   time.Duration
	strict  bool
	primary bool
	wait    time.Duration
}

// ReadOption adjusts one handle from Read.
type ReadOption func(*readSettings)

// MaxStaleness makes d a promise: no node that may be staler answers, and when none is left the read fails with
// ErrNoNode. Zero and less ask for the primary.
func MaxStaleness(d time.Duration) ReadOption {
	return func(s *readSettings) { s.bound, s.strict, s.primary = d, true, d <= 0 }
}

// PreferPrimary reads from the primary while it is up, over a read-only session.
func PreferPrimary() ReadOption { return func(s *readSettings) { s.primary = true } }

// WaitForReplica is Options.WaitForReplica for one handle.
func WaitForReplica(d time.Duration) ReadOption { return func(s *readSettings) { s.wait = d } }

func (db *DB) defaultRead() readSettings {
	return readSettings{bound: db.opts.MaxStaleness, wait: db.opts.WaitForReplica}
}

// Read returns a handle that reads from replicas which have what the caller has written: the watermark in the context
// of each call says what that is. When no replica qualifies, the primary answers. Sessions are read-only wherever they
// go, so a write fails in the same way, with ErrWriteInRead, with and without replicas.
func (db *DB) Read(opts ...ReadOption) *Reader {
	if len(opts) == 0 {
		return &db.reader
	}
	r := &Reader{db: db, s: db.defaultRead()}
	for _, o := range opts {
		o(&r.s)
	}
	return r
}

// lease is one read's hold on a node.
type lease struct {
	conn      *pgxpool.Conn
	db        *DB
	node      *node
	begun     time.Duration
	onReplica bool
}

// lease chooses a node and takes a connection. not holds the nodes that failed this read already, and those that fail
// to connect here are added to it.
func (r *Reader) lease(ctx context.Context, not *uint64) (lease, error) {
	var failed error
	for {
		n, onReplica, because, err := r.choose(ctx, *not)
		if err != nil {
			return lease{}, after(failed, err)
		}
		l := lease{db: r.db, node: n, onReplica: onReplica}
		n.load.begin()
		l.conn, err = r.db.acquireRead(ctx, n)
		if err == nil {
			l.begun = r.db.now() // connecting says nothing about the node, and waiting is in inflight
			r.db.served(n, onReplica, because)
			return l, nil
		}
		n.load.end()
		if ctx.Err() != nil || r.db.closed.Load() {
			return lease{}, err
		}
		r.db.fail(n)
		*not |= 1 << n.index
		if bits.OnesCount64(*not) >= maxTries {
			return lease{}, err
		}
		failed = err
	}
}

// after joins why the first node failed to why there is no second one.
func after(failed, err error) error {
	if failed == nil || !errors.Is(err, ErrNoNode) {
		return err
	}
	return fmt.Errorf("%w: %w", err, failed)
}

// give gives the connection back.
func (l *lease) give(err error) {
	if lost(err, l.conn.Conn().IsClosed()) && !ranOut(err) {
		l.db.fail(l.node)
	}
	l.conn.Release()
	l.node.load.end()
}

// ranOut reports whether a caller's context ended: that closes the connection, but says nothing about the node.
func ranOut(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err)
}

// again reports whether a read that failed on l with err may be tried elsewhere, and notes that in not.
func (l *lease) again(ctx context.Context, err error, not *uint64) bool {
	if !readRetry(ctx, err, l.conn.Conn().IsClosed(), l.onReplica) {
		return false
	}
	*not |= 1 << l.node.index
	return bits.OnesCount64(*not) < maxTries
}

// choose picks the node and notes in the watermark how fresh the answer will be at least.
func (r *Reader) choose(ctx context.Context, not uint64) (n *node, onReplica bool, because reason, err error) {
	db := r.db
	w := scaleaware.WatermarkFrom(ctx)
	s := db.snap.Load()
	if s != nil && !s.settled && w.Changes() > 0 {
		if s, err = db.settle(ctx, s); err != nil {
			return nil, false, 0, err
		}
	}
	need, because := db.needed(ctx, s, w)
	if s == nil || because == becauseUnknown && need.Timeline == 0 {
		n := db.writer.Load()
		if not&(1<<n.index) != 0 {
			return nil, false, 0, fmt.Errorf("%w: the primary %s failed", ErrNoNode, n.name)
		}
		if s == nil {
			if because != becauseUnknown {
				err = db.reaches(ctx, w)
			}
			if because = becauseNoMonitor; err != nil {
				return nil, false, 0, err
			}
		}
		w.Saw(db.asOf())
		return n, false, because, nil
	}
	d := demand{
		token: need, bound: r.s.bound, strict: r.s.strict, primary: r.s.primary,
		wait: r.s.wait > 0, not: not, now: db.now(), random: rand.Uint64(),
	}
	c := route(s, d)
	if c.wait {
		if s, c, err = db.await(ctx, s, d, r.s.wait); err != nil {
			return nil, false, 0, err
		}
	}
	if c.node == nobody {
		return nil, false, 0, db.noNode(s, d)
	}
	if !need.IsZero() {
		db.in.token("obeyed")
	}
	v := &s.views[c.node]
	if v.role == roleReplica {
		w.Saw(v.at)
		return db.nodes[c.node], true, c.because, nil
	}
	w.Saw(db.asOf())
	return db.nodes[c.node], false, c.because, nil
}

// await waits until a replica has replayed d.token, for budget at the most.
func (db *DB) await(ctx context.Context, s *snapshot, d demand, budget time.Duration) (*snapshot, choice, error) {
	db.waiters.Add(1)
	defer db.waiters.Add(-1)
	outdated := d.token.Timeline > s.views[s.writer].at.Timeline // whoever was promoted may have any role yet
	for i := range s.views {
		if outdated || s.views[i].role == roleReplica {
			db.wake(db.nodes[i])
		}
	}
	timer := time.NewTimer(budget)
	defer timer.Stop()
	for {
		select {
		case <-s.next:
		case <-timer.C:
			d.wait = false
		case <-ctx.Done():
			return s, choice{node: nobody}, fmt.Errorf("dbsplit: while waiting for a replica: %w", ctx.Err())
		}
		if newer := db.snap.Load(); newer != nil {
			s = newer
		} else {
			d.wait = false // Run has ended
		}
		d.now = db.now()
		if c := route(s, d); !c.wait {
			return s, c, nil
		}
	}
}

// noNode says why nobody can answer.
func (db *DB) noNode(s *snapshot, d demand) error {
	if d.not != 0 {
		return fmt.Errorf("%w: the node that was tried failed, and no other qualifies", ErrNoNode)
	}
	primary := db.nodes[s.writer].name
	switch {
	case d.token.Timeline > s.views[s.writer].at.Timeline:
		return outdated(primary, d.token)
	case !d.token.IsZero():
		return fmt.Errorf("%w: primary %s is down, and no replica has what this caller wrote or is fresh enough; bring a node up", ErrNoNode, primary)
	case d.strict:
		return fmt.Errorf("%w: primary %s is down, and no replica is proven to be at most %v stale; bring a node up, or ask for less", ErrNoNode, primary, d.bound)
	default:
		return fmt.Errorf("%w: primary %s is down, and no replica is up; bring a node up", ErrNoNode, primary)
	}
}

var (
	_ rowQuerier = (*Reader)(nil)
	_ pgx.Row    = (*readRow)(nil)
	_ pgx.Rows   = (*readRows)(nil)
)
