package cache

import (
	"math/rand/v2"
	"time"
)

// life is how long an entry lives, from when it is stored.
type life struct {
	fresh    time.Duration // until it is stale
	whole    time.Duration // until nothing may be done with it any more
	physical time.Duration // the TTL in Redis: whole, longer under a TTL extension
}

// into gives a header its expiries, for the scripts as ms from when it is stored, and returns the TTL in ms.
func (l life) into(h *header) int64 {
	h.soft, h.hard = l.fresh.Milliseconds(), l.whole.Milliseconds()
	return l.physical.Milliseconds()
}

// lifeOf returns the life of an entry that is stored now. Jitter moves the end of freshness, and with it the rest.
func (v *viewState) lifeOf(s *Store, id string, k kind) life {
	ttl, window := v.opts.ttl, v.staleFor(k)
	if k == kindNegative {
		ttl = v.opts.negative
	}
	fresh := max(ttl-time.Duration(rand.Float64()*v.opts.jitter*float64(ttl)), time.Millisecond)
	l := life{fresh: fresh, whole: fresh + window, physical: fresh + window}
	if x := s.extensionOf(v.name, id); x != nil {
		l.physical += x.stretch(fresh) - fresh
	}
	return l
}

// phase is what an entry's age allows.
type phase int

const (
	fresh      phase = iota
	revalidate       // serve it and load it anew behind the caller's back
	onError          // serve it only when the origin fails
	over
)

// staleFor is for how long an entry lives on when it is stale.
func (v *viewState) staleFor(k kind) time.Duration {
	if k != kindValue {
		return 0
	}
	return max(v.opts.revalidate, v.opts.onError)
}

// own says how long an entry is fresh at now without any extension, less than nothing when it is stale.
func (h *header) own(now int64) time.Duration { return time.Duration(h.soft-now) * time.Millisecond }

// age says in which phase an entry is at now, Unix milliseconds by its node's clock, and how long it stays fresh, less than
// nothing when it is stale. What Redis still has is fresh when the view has no stale windows: then the TTL tells all, and
// no clock is asked.
func (v *viewState) age(h header, now int64, x *Extension) (phase, time.Duration) {
	left := h.own(now)
	if x != nil && h.kind == kindValue {
		begun := time.Duration(h.soft-int64(h.start/1000)) * time.Millisecond
		left += x.stretch(begun) - begun
	}
	switch {
	case left > 0:
		return fresh, left
	case left > -v.opts.revalidate:
		return revalidate, left
	case left > -v.opts.onError:
		return onError, left
	default:
		return over, left
	}
}

// windowed says that entries of the view live on when they are stale.
func (o viewOptions) windowed() bool { return o.revalidate > 0 || o.onError > 0 || o.early > 0 }
