package dbsplit

import (
	"context"
	"fmt"
	"slices"

	"github.com/scaleaware/scaleaware"
)

// need is what the caller of a read must see.
type need struct {
	token   scaleaware.Token
	because reason // becauseUnknown: the token may not be all, or means a timeline that was not seen yet
	old     bool   // token is of an earlier timeline: whoever goes on with it calls outlive first
	// seen is the one node whose state at the caller's last read must not be gone back behind, at a position that is not known
	// yet. Reading there again needs none.
	seen *node
}

// needed returns what the caller of a read has written, and seen where that counts, without a round trip where it can.
func (db *DB) needed(ctx context.Context, s *snapshot, w *scaleaware.Watermark) (need, error) {
	if w == nil {
		return need{}, nil
	}
	if s == nil || !db.opts.MonotonicReads {
		return db.settled(ctx, s, w)
	}
	known, open := w.Known()
	open = db.concerning(open)
	if len(open) != 1 {
		return db.settled(ctx, s, w)
	}
	seen, ok := open[0].(*sight)
	own := db.own(s, known)
	if !ok || seen.db != db || own.Unknown() || !seen.current() || !s.has(seen.node) {
		return db.settled(ctx, s, w)
	}
	out, err := db.proven(ctx, s, w, own)
	out.seen = seen.node
	return out, err
}

// written is w.Written, as far as this DB goes: another database that is down says nothing about this one, and is not
// waited for.
func (db *DB) written(ctx context.Context, w *scaleaware.Watermark) (scaleaware.Tokens, error) {
	known, open := w.Known()
	if len(db.concerning(open)) == 0 {
		return known, nil
	}
	written, err := w.Written(ctx)
	if err != nil {
		if known, open = w.Known(); len(db.concerning(open)) == 0 {
			return known, nil
		}
	}
	return written, err
}

// concerning leaves of the sources those whose positions may be this DB's.
func (db *DB) concerning(open []scaleaware.Source) []scaleaware.Source {
	if len(open) == 0 {
		return nil
	}
	own := db.System()
	return slices.DeleteFunc(open, func(src scaleaware.Source) bool {
		named, ok := src.(scaleaware.SystemSource)
		if !ok || own == 0 {
			return false
		}
		system := named.System()
		return system != 0 && system != own
	})
}

// settled is needed when all of it has to be known as a position. It asks for what is not.
func (db *DB) settled(ctx context.Context, s *snapshot, w *scaleaware.Watermark) (need, error) {
	written, err := db.written(ctx, w)
	if err != nil {
		return db.unsettled(ctx), nil
	}
	token := db.own(s, written)
	if token.Unknown() {
		unknown := token
		if token, err = db.Position(ctx); err != nil || token.System != unknown.System {
			return db.unsettled(ctx), nil
		}
		w.Settle(unknown, token)
		db.in.token(tokenSettled)
	}
	return db.proven(ctx, s, w, token)
}

// unsettled is what is needed when the position is not known. A caller who has gone says nothing about that.
func (db *DB) unsettled(ctx context.Context) need {
	if ctx.Err() == nil {
		db.in.token(tokenUnknown)
	}
	return need{because: becauseUnknown}
}

// proven returns a token that is proven to be possible. A position on the present timeline that the primary has not
// reached was made up, or comes from a cluster that lost it: it is ignored, so that it cannot pin its bearer to the
// primary. An unknown one is never returned.
func (db *DB) proven(ctx context.Context, s *snapshot, w *scaleaware.Watermark, token scaleaware.Token) (need, error) {
	asked := need{token: token, because: becauseReplica}
	if token.IsZero() || s == nil {
		return asked, nil
	}
	known := db.asOf()
	if known.System != token.System {
		return asked, nil // the primary was never seen: replicas decide by themselves
	}
	if ahead(token, known) {
		var err error
		if known, err = db.Position(ctx); err != nil {
			return asked, nil
		}
	}
	switch {
	case token.Timeline > known.Timeline:
		db.in.token(tokenAhead)
		asked.because = becauseUnknown
	case token.Timeline < known.Timeline:
		asked.old = true
	case token.LSN > known.LSN:
		db.in.token(tokenImpossible)
		return need{because: becauseReplica}, nil
	}
	return asked, nil
}

// outlive lets a caller go on whose token is of an earlier timeline. When that ended before it, the caller is told, once. A read
// that Hedge or Shadow sends beside the caller's own ends here: what it is told, nobody might hear.
func (r *Reader) outlive(w *scaleaware.Watermark, token scaleaware.Token) error {
	db := r.db
	if r.s.because != 0 {
		return fmt.Errorf("%w: there was a promotion since what this read must see", ErrNoNode)
	}
	w.RaiseFrom(db) // the read that follows sees the present timeline, and so must those after it
	if db.history.Load().lost(token) && db.told.first(token) {
		db.in.token(tokenLost)
		return fmt.Errorf("%w: its position is on timeline %d, which ended before it in a promotion", ErrLostWrite, token.Timeline)
	}
	db.in.token(tokenOldTimeline)
	return nil
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
