package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// monitor is what Run knows between two probes.
type monitor struct {
	mu       sync.Mutex
	nodes    []standing
	told     []verdict
	ring     ring
	timeline uint32 // of the samples in ring
}

// Run watches the nodes, each over a connection of its own, until ctx ends: their roles, positions and staleness. Reads
// go to replicas while it runs. It returns nil when ctx ends, and an error only when it runs already.
func (db *DB) Run(ctx context.Context) error {
	if !db.running.CompareAndSwap(false, true) {
		return errors.New("dbsplit: Run is running already, call it once for each DB")
	}
	defer db.running.Store(false)
	db.monitor.forget()
	db.publish()
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range db.nodes {
		g.Go(func() error { db.watch(ctx, n); return nil })
	}
	g.Go(func() error { db.measure(ctx); return nil })
	err := g.Wait()
	if last := db.snap.Swap(nil); last != nil {
		close(last.next)
	}
	return err
}

// watch probes n until ctx ends. Its connection is its own, so that a pool whose connections are all in use cannot blind it.
func (db *DB) watch(ctx context.Context, n *node) {
	var conn *pgx.Conn
	quick := time.Duration(0)
	for {
		sent := time.Now()
		p, err := db.probeNode(ctx, n, &conn)
		if ctx.Err() != nil {
			hangUp(conn)
			return
		}
		db.observe(n, sent, p, err)
		wait := db.opts.ProbeInterval * time.Duration(90+rand.IntN(21)) / 100
		if db.waiters.Load() > 0 && err == nil {
			quick = min(max(2*time.Millisecond, 2*quick), 8*time.Millisecond)
			wait = min(wait, quick)
		} else {
			quick = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			hangUp(conn)
			return
		case <-timer.C:
		case <-n.prompt:
			timer.Stop()
		}
	}
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing can be done about it
}

// probeNode connects when it must. A connection that failed is not used again.
func (db *DB) probeNode(ctx context.Context, n *node, conn **pgx.Conn) (position, error) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	if *conn == nil {
		c := n.config.ConnConfig.Copy()
		c.RuntimeParams["application_name"] = db.opts.Name + " monitor"
		c.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statement: works through a pooler as well
		opened, err := pgx.ConnectConfig(ctx, c)
		if err != nil {
			return position{}, err
		}
		*conn = opened
	}
	p, err := probe(ctx, *conn)
	if err != nil {
		hangUp(*conn)
		*conn = nil
	}
	return p, err
}

// observe takes in one probe of n and publishes what follows from it.
func (db *DB) observe(n *node, sent time.Time, p position, err error) {
	m := &db.monitor
	m.mu.Lock()
	before := m.nodes[n.index]
	now := standing{position: p, probed: true, up: err == nil, since: sent, err: err}
	if err != nil {
		now.position = before.position
		db.in.failed("probe")
	} else {
		n.load.suspect.Store(false)
	}
	m.nodes[n.index] = now
	current := db.writer.Load()
	winner, _ := elect(m.nodes, current.index, db.system.Load())
	elected := db.nodes[winner]
	m.mu.Unlock()

	db.note(n, before, now)
	if elected != current {
		if err := db.moveWriter(current, elected); err != nil {
			db.in.failed("failover")
			db.opts.Logger.Error("dbsplit: cannot move the writing pool", "db", db.opts.Name, "to", elected.name, "error", err)
		}
	}
	db.sampleWriter()
	db.publish()
	if err != nil && ranOut(err) {
		// Other failures speak: a connection that they concern ends by itself, and a long statement may well go on.
		if ended := n.lines.end(sent.Sub(db.opened)); ended > 0 {
			db.opts.Logger.Warn("dbsplit: node is silent, connections to it were closed", "db", db.opts.Name, "node", n.name, "connections", ended)
		}
	}
}

// moveWriter points writes to a promoted server. Statements under way on the old one keep their connections.
func (db *DB) moveWriter(from, to *node) error {
	db.resize.Lock()
	defer db.resize.Unlock()
	if db.closed.Load() {
		return ErrClosed
	}
	if db.writer.Load() != from {
		return nil // another probe was quicker
	}
	if err := db.replaceWrites(to, db.maxConns.Load()); err != nil {
		return err
	}
	db.writer.Store(to)
	db.retire(from.writes.Swap(nil))
	db.opts.Logger.Warn("dbsplit: writes have moved to the promoted server", "db", db.opts.Name, "from", from.name, "to", to.name)
	return nil
}

// sampleWriter adds the writer's latest probe to the ring.
func (db *DB) sampleWriter() {
	m := &db.monitor
	w := db.writer.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.nodes[w.index]
	if !s.up || s.recovering {
		return
	}
	if known := db.system.Load(); known != s.at.System {
		db.system.Store(s.at.System)
		m.ring.reset()
		if known != 0 {
			db.opts.Logger.Warn("dbsplit: the primary is another cluster than before, older tokens count for nothing", "db", db.opts.Name, "node", w.name)
		}
	}
	if m.timeline != s.at.Timeline {
		m.timeline = s.at.Timeline
		m.ring.reset()
	}
	m.ring.add(s.at.LSN, s.since)
	db.sighted(s.at)
}

// publish replaces the snapshot and rouses those who wait for it.
func (db *DB) publish() {
	m := &db.monitor
	m.mu.Lock()
	s := &snapshot{
		views:  make([]view, len(db.nodes)),
		writer: db.writer.Load().index,
		next:   make(chan struct{}),
	}
	elected, contested := elect(m.nodes, s.writer, db.system.Load())
	s.settled = elected == s.writer
	for i, n := range db.nodes {
		s.views[i] = m.view(db, n, i == s.writer)
		s.settled = s.settled && (s.views[i].probed || len(db.nodes) == 1)
	}
	for i := range s.views {
		s.views[i].contested = contested&(1<<i) != 0
	}
	s.views[s.writer].tied = contested != 0 && !s.views[s.writer].contested
	last := db.snap.Swap(s)
	alarms := db.judge(s, elected)
	m.mu.Unlock()
	if last != nil {
		close(last.next)
	}
	for _, n := range alarms {
		db.in.failed("role")
		db.opts.Logger.Error("dbsplit: node has not the role that it should have", "db", db.opts.Name,
			"node", n.name, "role", s.views[n.index].role.String(), "advice", s.views[n.index].advice(n.index == s.writer))
	}
}

func (m *monitor) view(db *DB, n *node, writer bool) view {
	st := m.nodes[n.index]
	system := db.system.Load()
	v := view{probed: st.probed, up: st.up, at: st.at, load: &n.load}
	switch {
	case st.at.IsZero():
		return v
	case system != 0 && st.at.System != system:
		v.role = roleStranger
	case st.recovering && !writer:
		v.role = roleReplica
	case !st.recovering && writer:
		v.role = rolePrimary
	case !st.recovering:
		v.role = roleRival
	default: // the writer is in recovery, and nobody was promoted: still, what it has can be read
		v.role = roleReplica
	}
	if v.role == roleReplica && st.at.Timeline == m.timeline {
		if at, ok := m.ring.reached(st.at.LSN); ok {
			v.fresh, v.bounded = at.Sub(db.opened), true
		}
	}
	return v
}

func (m *monitor) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, st := range m.nodes {
		m.nodes[i] = standing{position: st.position} // the writer's timeline still counts
	}
	m.ring.reset()
}

// reason says why node i has not the role that its place in the configuration promises.
func (m *monitor) reason(i int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.nodes[i]
	switch {
	case st.err != nil:
		return st.err
	case st.recovering:
		return ErrNotPrimary
	default:
		return fmt.Errorf("dbsplit: it answered as %v", st.at)
	}
}
