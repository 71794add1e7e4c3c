package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/scaleaware/scaleaware"
)

// decision is where a read goes, and what led there.
type decision struct {
	node      *node
	onReplica bool
	because   reason
	watermark *scaleaware.Watermark
	staleness time.Duration
	bounded   bool // staleness is known
	token     bool // something had to be seen
	retry     bool
	snapshot  *snapshot // nil without the monitor
	demand    demand
}

// decide picks the node for a read that the nodes in not have failed, and notes in the watermark how fresh the answer will
// be at least.
func (r *Reader) decide(ctx context.Context, not uint64, out *decision) error {
	db := r.db
	out.watermark, out.retry = scaleaware.WatermarkFrom(ctx), not != 0 && r.s.because != becauseHedge
	s := db.snap.Load()
	if s != nil && !s.settled {
		var err error
		if s, err = r.begin(ctx, s, out.watermark); err != nil {
			return err
		}
	}
	out.snapshot = s
	need, err := db.needed(ctx, s, out.watermark)
	if err == nil && need.old {
		err = r.outlive(out.watermark, need.token)
	}
	if err == nil && r.s.current {
		err = db.present(ctx, &need)
	}
	if err != nil {
		return err
	}
	c, err := r.choose(ctx, need, not, out)
	if err == nil && need.seen != nil && c.node != need.seen.index {
		// What was seen there must be known as a position, to be looked for elsewhere.
		need, err = db.settled(ctx, s, out.watermark)
		if err == nil && need.old {
			err = r.outlive(out.watermark, need.token)
		}
		if err == nil {
			c, err = r.choose(ctx, need, not, out)
		}
	}
	if err != nil || out.node != nil {
		return err
	}
	if c.wait {
		if c, err = r.await(ctx, out); err != nil {
			return err
		}
	}
	if c.node == nobody {
		return r.noNode(out)
	}
	out.token = !out.demand.token.IsZero()
	if c.because == becauseBehind {
		db.behind.Store(int64(out.demand.now))
	}
	out.take(db, c)
	return nil
}

// orphan returns the node that should be the primary, when the decision was made without one that the read could have gone to.
func (r *Reader) orphan(out *decision) *node {
	s, d := out.snapshot, &out.demand
	if s == nil || r.s.only != "" || d.noPrimary && !d.primary {
		return nil
	}
	n, v := s.nodes[s.writer], &s.views[s.writer]
	if v.up && v.role == rolePrimary && r.db.writer.Load() == n {
		return nil
	}
	return n
}

// choose routes the read by what it needs, or, when that cannot be compared, decides for the primary.
func (r *Reader) choose(ctx context.Context, need need, not uint64, out *decision) (choice, error) {
	if out.snapshot == nil || need.because == becauseUnknown && need.token.Timeline == 0 {
		return choice{node: nobody}, r.blind(ctx, need.because, not, out)
	}
	if err := r.demand(out, need, not); err != nil {
		return choice{node: nobody}, err
	}
	return route(out.snapshot, &out.demand), nil
}

// take makes c the decision.
func (out *decision) take(db *DB, c choice) {
	v := &out.snapshot.views[c.node]
	out.node, out.because, out.onReplica = out.snapshot.nodes[c.node], c.because, v.role == roleReplica
	if out.onReplica {
		out.staleness, out.bounded = max(0, out.demand.now-v.fresh), v.bounded
		out.watermark.Saw(v.at)
		return
	}
	out.watermark.Saw(db.asOf())
}

// demand fills in what the read asks of the nodes.
func (r *Reader) demand(out *decision, need need, not uint64) error {
	s := out.snapshot
	d := &out.demand
	*d = demand{
		token: need.token, bound: r.s.bound, strict: r.s.strict, primary: r.s.primary || r.s.strict && r.s.bound <= 0, wait: r.s.wait > 0,
		noPrimary: !r.s.fallback.primary() && s.members > 1, noStale: !r.s.fallback.stale(),
		not: not, retry: out.retry, now: r.db.now(), random: rand.Uint64(),
	}
	if need.seen != nil {
		d.prefer, d.seen = 1<<need.seen.index, true
	}
	if r.s.only != "" {
		place := s.place(r.s.only)
		if place < 0 {
			return fmt.Errorf("%w: there is no node %s, the nodes are those that Nodes reports", ErrNoNode, r.s.only)
		}
		d.not |= ^(uint64(1) << place)
		d.primary = place == s.writer
		d.noStale = false
	}
	if place := s.place(r.s.canary); r.s.canary != "" && place >= 0 {
		if rand.Float64() < r.s.share {
			d.prefer |= 1 << place
		} else {
			d.avoid |= 1 << place
		}
	}
	return nil
}

func (s *snapshot) has(n *node) bool { return n.index < len(s.nodes) && s.nodes[n.index] == n }

func (s *snapshot) place(name string) int {
	for i, n := range s.nodes {
		if n != nil && n.name == name {
			return i
		}
	}
	return nobody
}

// blind decides without positions to compare: there is no monitor, or it is not known what the caller wrote. Then the
// primary answers.
func (r *Reader) blind(ctx context.Context, because reason, not uint64, out *decision) error {
	db := r.db
	n := db.writer.Load()
	switch {
	case r.s.only != "" && r.s.only != n.name:
		return fmt.Errorf("%w: it cannot be told whether node %s has what this read must see: Run is not running, or the position of a write is unknown; read from any node", ErrNoNode, r.s.only)
	case out.snapshot != nil && out.snapshot.members > 1 && !r.s.fallback.primary():
		return fmt.Errorf("%w: the position of what this caller wrote is unknown, so only the primary has it for sure, which this read's Fallback spares", ErrNoNode)
	}
	if not&(1<<n.index) != 0 {
		return fmt.Errorf("%w: the primary %s failed", ErrNoNode, n.name)
	}
	if out.snapshot == nil {
		if because != becauseUnknown {
			if err := db.reaches(ctx, out.watermark); err != nil {
				return err
			}
		}
		because = becauseNoMonitor
	}
	out.watermark.Saw(db.asOf())
	out.node, out.because, out.snapshot = n, because, nil
	return nil
}

// acquire takes a connection to the decided node, and counts the read as under way there. When reads have used up their
// share of the primary, it turns to a staler replica, if the read may go there.
func (r *Reader) acquire(ctx context.Context, out *decision) (guarded, error) {
	db := r.db
	n := out.node
	n.load.begin()
	d := out.demand
	if out.snapshot == nil {
		d.now = db.now() // nothing was routed
	}
	if out.onReplica || out.snapshot == nil || d.primary || d.strict || d.noStale {
		return db.heldBy(ctx, n, d.now)
	}
	d.not, d.wait = d.not|1<<n.index, false
	if route(out.snapshot, &d).node == nobody {
		return db.heldBy(ctx, n, d.now)
	}
	bounded, cancel := context.WithTimeout(ctx, db.opts.PrimaryReadWait)
	defer cancel()
	conn, err := db.heldBy(bounded, n, d.now)
	if err == nil || bounded.Err() == nil && !errors.Is(err, ErrSaturated) || ctx.Err() != nil {
		return conn, err
	}
	d.now = db.now()
	c := route(out.snapshot, &d)
	if c.node == nobody { // nor is there any more, so the primary is waited for after all
		n.load.begin()
		return db.heldBy(ctx, n, d.now)
	}
	c.because = becauseBusy
	out.take(db, c)
	out.node.load.begin()
	return db.heldBy(ctx, out.node, d.now)
}

// heldBy takes a connection for a read that was counted already, and takes it out of the count on an error.
func (db *DB) heldBy(ctx context.Context, n *node, now time.Duration) (guarded, error) {
	conn, err := db.acquireReadSince(ctx, n, now)
	if err != nil {
		n.load.end()
	}
	return conn, err
}

// await waits until a replica has replayed the token, for as long as the read may.
func (r *Reader) await(ctx context.Context, out *decision) (choice, error) {
	db, s, d := r.db, out.snapshot, &out.demand
	if r.s.because != becauseShadow { // nobody waits for that one, so the monitor need not hurry
		db.wanted.Store(uint64(d.token.LSN))
		db.waiters.Add(1)
		defer db.waiters.Add(-1)
	}
	outdated := d.token.Timeline > s.views[s.writer].at.Timeline // whoever was promoted may have any role yet
	for i, n := range s.nodes {
		if n != nil && (outdated || s.views[i].role == roleReplica && d.not&(1<<i) == 0) {
			db.wake(n)
		}
	}
	timer := time.NewTimer(r.s.wait)
	defer timer.Stop()
	for {
		select {
		case <-s.next:
		case <-timer.C:
			d.wait = false
		case <-ctx.Done():
			return choice{node: nobody}, fmt.Errorf("dbsplit: while waiting for a replica: %w", ctx.Err())
		}
		if newer := db.snap.Load(); newer != nil {
			s = newer
		} else {
			d.wait = false // Run has ended
		}
		d.now = db.now()
		if c := route(s, d); !c.wait {
			out.snapshot = s
			return c, nil
		}
	}
}

// noNode says why nobody can answer.
func (r *Reader) noNode(out *decision) error {
	s, d := out.snapshot, &out.demand
	primary := s.nodes[s.writer].name
	switch {
	case out.retry:
		return fmt.Errorf("%w: the node that was tried failed, and no other qualifies", ErrNoNode)
	case d.token.Timeline > s.views[s.writer].at.Timeline:
		return outdated(primary, d.token)
	case r.s.only != "":
		return fmt.Errorf("%w: node %s is down, has not what this read must see, or is not proven to be fresh enough; read from any node, or ask for less", ErrNoNode, r.s.only)
	}
	state := "is down"
	if d.noPrimary {
		state = "is not to be read from by this read's Fallback"
	}
	switch {
	case !d.token.IsZero():
		return fmt.Errorf("%w: primary %s %s, and no replica has what this caller wrote or is fresh enough; bring a node up", ErrNoNode, primary, state)
	case d.strict:
		return fmt.Errorf("%w: primary %s %s, and no replica is proven to be at most %v stale; bring a node up, or ask for less", ErrNoNode, primary, state, d.bound)
	case d.noStale:
		return fmt.Errorf("%w: primary %s %s, and no replica is within Options.MaxStaleness; bring a node up, or allow staler ones by Fallback", ErrNoNode, primary, state)
	default:
		return fmt.Errorf("%w: primary %s %s, and no replica is up; bring a node up", ErrNoNode, primary, state)
	}
}

// present makes need ask for everything that is committed now.
func (db *DB) present(ctx context.Context, need *need) error {
	now, err := db.Position(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("dbsplit: while asking the primary for its position: %w", err)
		}
		return fmt.Errorf("%w: the primary does not tell its position, which a read with RequireFresh needs: %w", ErrNoNode, err)
	}
	if need.because != becauseUnknown && !ahead(need.token, now) {
		need.token, need.seen = now, nil
	}
	return nil
}
