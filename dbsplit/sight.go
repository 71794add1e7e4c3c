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
}

// sighted remembers a position of the primary if it is the highest so far, and how recent the knowledge is.
func (db *DB) sighted(t scaleaware.Token, asked time.Time) {
	for {
		old := db.latest.Load()
		now := sighting{t, asked}
		if old != nil && old.at.System == t.System {
			if ahead(old.at, t) {
				now.at = old.at
			}
			if old.at.Timeline > t.Timeline {
				now.asked = old.asked // an answer of a server that has been replaced
			} else if old.at.Timeline == t.Timeline && old.asked.After(asked) {
				now.asked = old.asked
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

// PositionSince implements scaleaware.RecentSource: the monitor samples the primary anyway, and a sample that was asked for
// after a commit covers it.
func (db *DB) PositionSince(mark time.Time) (scaleaware.Token, bool) {
	if s := db.latest.Load(); s != nil && s.asked.After(mark) {
		return s.at, true
	}
	return scaleaware.Token{}, false
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
