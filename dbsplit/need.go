package dbsplit

import (
	"context"

	"github.com/scaleaware/scaleaware"
)

// needed returns what the caller of a read has written, once it is proven to be possible. A position on the present
// timeline that the primary has not reached was made up, or comes from a cluster that lost it: it is ignored, so that
// it cannot pin its bearer to the primary.
func (db *DB) needed(ctx context.Context, s *snapshot, w *scaleaware.Watermark) (need scaleaware.Token, because reason) {
	written, err := w.Written(ctx)
	if err != nil {
		db.in.token("unknown")
		return scaleaware.Token{}, becauseUnknown
	}
	need = written.For(db.system.Load())
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

func ahead(t, known scaleaware.Token) bool {
	return t.Timeline > known.Timeline || t.Timeline == known.Timeline && t.LSN > known.LSN
}
