package dbsplit

import (
	"context"

	"github.com/scaleaware/scaleaware"
)

// needed returns what the caller of a read has written, once it is proven to be possible. A position on the present
// timeline that the primary has not reached was made up, or comes from a cluster that lost it: it is ignored, so that
// it cannot pin its bearer to the primary. An unknown one gives way to where the primary stands now; it is never returned.
func (db *DB) needed(ctx context.Context, s *snapshot, w *scaleaware.Watermark) (need scaleaware.Token, because reason) {
	written, err := w.Written(ctx)
	if err != nil {
		db.in.token("unknown")
		return scaleaware.Token{}, becauseUnknown
	}
	need = db.own(s, written)
	if need.Unknown() {
		unknown := need
		if need, err = db.Position(ctx); err != nil || need.System != unknown.System {
			db.in.token("unknown")
			return scaleaware.Token{}, becauseUnknown
		}
		w.Settle(unknown, need)
		db.in.token("settled")
	}
	if need.IsZero() || s == nil {
		return need, becauseReplica
	}
	known := db.asOf()
	if known.System != need.System {
		return need, becauseReplica // the primary was never seen: replicas decide by themselves
	}
	if ahead(need, known) {
		if known, err = db.Position(ctx); err != nil {
			return need, becauseReplica
		}
	}
	switch {
	case need.Timeline > known.Timeline:
		db.in.token("ahead")
		return need, becauseUnknown
	case need.Timeline < known.Timeline:
		db.in.token("old-timeline")
		w.RaiseFrom(db) // the read that follows sees the present timeline, and so must those after it
	case need.LSN > known.LSN:
		db.in.token("impossible")
		return scaleaware.Token{}, becauseReplica
	}
	return need, becauseReplica
}

// own returns the token of this DB's system. Before the primary was ever seen the replicas tell which that is: a process
// that began while it was down must not forget what its callers wrote.
func (db *DB) own(s *snapshot, written scaleaware.Tokens) scaleaware.Token {
	system := db.system.Load()
	if system != 0 || s == nil || len(written) == 0 {
		return written.For(system)
	}
	for i := range s.views {
		if t := written.For(s.views[i].at.System); !t.IsZero() {
			return t
		}
	}
	return scaleaware.Token{}
}

func ahead(t, known scaleaware.Token) bool {
	return t.Timeline > known.Timeline || t.Timeline == known.Timeline && t.LSN > known.LSN
}
