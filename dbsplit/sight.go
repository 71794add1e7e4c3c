package dbsplit

import (
	"context"
	"time"

	"github.com/scaleaware/scaleaware"
)

// sighting is a position of the primary, and when it was asked for: what was committed before that is covered by it.
type sighting struct {
	at    scaleaware.Token
	asked time.Time
	// first is when this timeline was first seen, and before the last sighting of the one before, if there was one.
	first  time.Time
	before *sighting
}

// sighted remembers a position of the primary if it is the highest so far, and how recent the knowledge is. moved says
// that writes went to another node before: then no write to the one before has gone to this timeline.
func (db *DB) sighted(t scaleaware.Token, asked time.Time, moved bool) {
	for {
		old := db.latest.Load()
		now := sighting{at: t, asked: asked, first: asked}
		if old != nil && old.at.System == t.System {
			if old.at.Timeline > t.Timeline {
				return // an answer of a server that has been replaced
			}
			if moved {
				now.before = &sighting{at: old.at, asked: old.asked}
			}
			if old.at.Timeline == t.Timeline {
				now.first, now.before = old.first, old.before
				if ahead(old.at, t) {
					now.at = old.at
				}
				if old.asked.After(asked) {
					now.asked = old.asked
				}
			}
			if now == *old {
				return
			}
		}
		if db.latest.CompareAndSwap(old, &now) {
			return
		}
	}
}

// asOf is a position that a read sent to the primary from now on is sure to see.
func (db *DB) asOf() scaleaware.Token {
	if s := db.latest.Load(); s != nil {
		return s.at
	}
	return scaleaware.Token{}
}

// fellBack takes in that the primary stands at a lower position than before, on its timeline: it has crashed, and had not
// flushed what it showed. It would be waited for in vain.
func (db *DB) fellBack(t scaleaware.Token, asked time.Time) {
	if old := db.latest.Load(); old != nil && old.at.System == t.System && old.at.Timeline == t.Timeline && ahead(old.at, t) && asked.After(old.asked) {
		db.latest.CompareAndSwap(old, &sighting{at: t, asked: asked, first: old.first, before: old.before})
	}
}

// PositionSince implements scaleaware.RecentSource: the monitor samples the primary anyway, and a sample that was asked for
// after a commit covers it. What was committed before the present timeline was seen was committed to the one before, and a
// promotion may have lost it: its position there is that of the next sample, or beyond the last.
func (db *DB) PositionSince(mark time.Time) (scaleaware.Token, bool) {
	s := db.latest.Load()
	switch {
	case s == nil || !s.asked.After(mark):
		return scaleaware.Token{}, false
	case s.before == nil || !mark.Before(s.first):
		return s.at, true
	case s.before.asked.After(mark):
		return s.before.at, true
	default:
		beyond := s.before.at
		beyond.LSN++
		return beyond, true
	}
}

// sight is what was seen on one replica, as a source of positions: at least as far as the replica had replayed by then. A
// replica that has been away gets a new one, since it may have come back at an older position.
type sight struct {
	db   *DB
	node *node
}

var (
	_ scaleaware.SystemSource = (*sight)(nil)
	_ scaleaware.RecentSource = (*sight)(nil)
	_ scaleaware.RecentSource = (*DB)(nil)
)

// Position asks the replica how far it has replayed, or the primary, which is never behind it.
func (s *sight) Position(ctx context.Context) (scaleaware.Token, error) {
	if !s.current() {
		return s.db.Position(ctx)
	}
	asked, cancel := context.WithTimeout(ctx, s.db.opts.ProbeTimeout)
	defer cancel()
	at, err := s.db.sample(asked, s.node, time.Now())
	if system := s.db.system.Load(); err == nil && s.current() && (system == 0 || at.System == system) {
		s.db.in.token(tokenCaptured)
		return at, nil
	}
	return s.db.Position(ctx)
}

func (s *sight) PositionSince(mark time.Time) (scaleaware.Token, bool) {
	snap := s.db.snap.Load()
	if snap == nil || !snap.has(s.node) || !s.current() {
		return scaleaware.Token{}, false
	}
	v := &snap.views[s.node.index]
	return v.at, v.up && v.role == roleReplica && v.sent.After(mark)
}

func (s *sight) current() bool { return s.node.sight.Load() == s }

func (s *sight) System() uint64 { return s.db.System() }

// OnlyRead says, as scaleaware.Source has it, that a replica's position does not cover what was committed on the primary.
func (s *sight) OnlyRead() {}
