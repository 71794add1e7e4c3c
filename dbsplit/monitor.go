package dbsplit

import (
	"fmt"
	"sync"
	"time"
)

// monitor is what Run knows between two probes.
type monitor struct {
	mu       sync.Mutex
	nodes    []standing // by node.index
	told     []verdict
	ring     ring
	timeline uint32 // of the samples in ring
	sampled  *node  // the writer that the last of them is from
}

// observe takes in one probe of n and publishes what follows from it.
func (db *DB) observe(n *node, sent time.Time, p position, err error) {
	m := &db.monitor
	m.mu.Lock()
	places := *db.places.Load()
	if places[n.index] != n {
		m.mu.Unlock()
		return // removed meanwhile
	}
	before := m.nodes[n.index]
	slow := false
	now := standing{position: p, admission: before.admission, probed: true, up: err == nil, lagging: before.lagging, since: sent, err: err}
	if err != nil {
		db.in.failed("probe")
	}
	switch {
	case err == nil:
		now.admission = now.admit(before, sent)
		if !before.up {
			n.sight.Store(&sight{db: db, node: n})
		}
		db.sawFork(before.position, p)
	case db.slowOnly(n, before, sent, err):
		slow = true
		now = before // its position gets old, and so it leaves when others are fresher
	default:
		now.position = before.position
	}
	m.nodes[n.index] = now
	current := db.writer.Load()
	m.markTwins(places, current)
	winner, _ := elect(m.nodes, current.index, db.system.Load())
	elected := places[winner]
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
	switch { // not before: a replica that was away may have come back at an older position
	case err != nil:
	case n.barred() != nil:
		n.load.doubt(db.now())
	default:
		n.load.trust(sent.Sub(db.opened))
	}
	if since, silent := n.silence(sent, err, db.opts.ProbeTimeout); silent && !slow {
		if before.up {
			db.dismiss(n)
		}
		if ended := n.lines.end(since.Sub(db.opened)); ended > 0 {
			db.opts.Logger.Warn("dbsplit: node is silent, connections to it were closed", "db", db.opts.Name, "node", n.name, "connections", ended)
		}
	}
}

// slowOnly reports whether a replica that did not answer its probe in time is slow, not silent, and the last one: it
// stays then, since reads of the primary are no help to a cluster that is overloaded. monitor.mu is held.
func (db *DB) slowOnly(n *node, before standing, sent time.Time, err error) bool {
	if !ranOut(err) || !before.up || !before.recovering || !n.lines.heard(sent.Add(-db.opts.ProbeTimeout).Sub(db.opened)) {
		return false
	}
	for i, st := range db.monitor.nodes {
		if i != n.index && st.up && st.recovering {
			return false
		}
	}
	return true
}

// moveWriter points writes to a promoted server. Statements under way on the old one keep their connections.
func (db *DB) moveWriter(from, to *node) error {
	db.resize.Lock()
	defer db.resize.Unlock()
	if db.closed.Load() {
		return ErrClosed
	}
	if db.writer.Load() != from || (*db.places.Load())[to.index] != to {
		return nil // another probe was quicker, or the node was removed meanwhile
	}
	if err := db.replaceWrites(to, db.maxConns.Load()); err != nil {
		return err
	}
	db.writer.Store(to)
	db.retire(from.writes.Swap(nil))
	db.opts.Logger.Warn("dbsplit: writes have moved to the promoted server", "db", db.opts.Name, "from", from.name, "to", to.name)
	for _, n := range []*node{from, to} {
		if err := db.replaceReads(n, n == to); err != nil {
			db.in.failed("failover")
			db.opts.Logger.Error("dbsplit: a pool for reads keeps the size of its node's old role", "db", db.opts.Name, "node", n.name, "error", err)
		}
	}
	select {
	case db.moved <- struct{}{}:
	default:
	}
	return nil
}

// sampleWriter adds the writer's latest probe to the ring.
func (db *DB) sampleWriter() {
	m := &db.monitor
	m.mu.Lock()
	defer m.mu.Unlock()
	w := db.writer.Load()
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
	db.fellBack(s.at, s.since)
	db.sighted(s.at, s.since, m.sampled != nil && m.sampled != w)
	m.sampled = w
}

// publish replaces the snapshot and rouses those who wait for it.
func (db *DB) publish() {
	m := &db.monitor
	m.mu.Lock()
	places := *db.places.Load()
	s := &snapshot{
		nodes:  places,
		views:  make([]view, len(places)),
		writer: db.writer.Load().index,
		next:   make(chan struct{}),
	}
	elected, contested := elect(m.nodes, s.writer, db.system.Load())
	s.settled = elected == s.writer
	for i, n := range places {
		if n == nil {
			s.views[i].probed = true
			continue
		}
		s.members++
		s.views[i] = m.view(db, n, i == s.writer)
		s.settled = s.settled && s.views[i].probed
	}
	s.weigh()
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

// weigh sums up what routing needs of all replicas together.
func (s *snapshot) weigh() {
	var first int64
	for i := range s.views {
		v := &s.views[i]
		if v.near {
			s.near |= 1 << i
		}
		if v.role != roleReplica || !v.up {
			continue
		}
		s.replicas |= 1 << i
		if first == 0 {
			first = v.share
		}
		s.uneven = s.uneven || v.share != first
	}
}

func (m *monitor) view(db *DB, n *node, writer bool) view {
	st := &m.nodes[n.index]
	system := db.system.Load()
	v := view{
		probed: st.probed, up: st.up, at: st.at, sent: st.since, load: &n.load,
		near: db.opts.Zone != "" && n.zone == db.opts.Zone, share: share(n.weight, 0, 0),
	}
	if !st.up {
		v.objection = objection(st.err)
	}
	switch {
	case st.at.IsZero():
		return v
	case system != 0 && st.at.System != system:
		v.role = roleStranger
	case st.twin && !writer:
		v.role = roleTwin
	case st.recovering && !writer:
		v.role = roleReplica
	case !st.recovering && writer:
		v.role = rolePrimary
	case !st.recovering:
		v.role = roleRival
	default: // the writer is in recovery, and nobody was promoted: still, what it has can be read
		v.role = roleReplica
	}
	if v.role != roleReplica {
		return v
	}
	v.barred = st.barred
	if !st.back.IsZero() {
		v.share = share(n.weight, max(1, st.back.Sub(db.opened)), db.now())
	}
	if st.at.Timeline != m.timeline {
		return v
	}
	switch at, ok := m.ring.reached(st.at.LSN); {
	case ok:
		v.fresh, v.bounded = at.Sub(db.opened), true
		switch stale := db.now() - v.fresh; {
		case stale > db.opts.MaxStaleness:
			st.lagging = true
		case stale <= db.opts.MaxStaleness/2:
			st.lagging = false
		}
		v.lagging = st.lagging
	case !at.IsZero():
		v.lacks = max(1, at.Sub(db.opened))
	}
	return v
}

func (m *monitor) forget(places []*node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, st := range m.nodes {
		m.nodes[i] = standing{position: st.position, probed: places[i] == nil} // the writer's timeline still counts
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
