package cache

import (
	"context"
	"time"
)

const (
	// firstPoll and lastPoll are the pauses between two looks at an entry that another process loads, where no news of it
	// comes by itself.
	firstPoll = 5 * time.Millisecond
	lastPoll  = 50 * time.Millisecond
	// surePoll is the pause where it does.
	surePoll = 500 * time.Millisecond
	// begins is how often a fill begins anew because the entry changes all the time, before it loads come what may. While
	// another process has the claim, it waits; a claim that is kept up is news, too.
	begins = 8
)

// claim makes the fill the one that loads, or hands over what another process's fill has brought. Without Redis everybody
// loads.
func (v *View[V]) claim(ctx context.Context, fl *fill, f *flight[V]) (over bool) {
	s := v.store
	fl.tagged, fl.anyAge = v.tags != nil, v.opts.untracked
	if fl.seen.down || s.redisOff() {
		return v.claimHere(fl, f)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.LoadTimeout)
	defer cancel()
	for changes := 0; changes < begins && ctx.Err() == nil; {
		how, over := v.contend(ctx, fl, f)
		if over || how == granted {
			return over
		}
		if how == changed {
			changes++
		}
	}
	return false
}

// contend makes the fill the one that loads, or waits for the one that does, and reports whether that has brought what it was to load.
func (v *View[V]) contend(ctx context.Context, fl *fill, f *flight[V]) (how begun, over bool) {
	s := v.store
	news, done := s.waits.on(fl.key)
	defer done()
	how, raw, wait, err := s.begin(ctx, fl)
	switch {
	case err != nil:
		s.in.failed(ctx, "lease", err, "view", v.name)
		return granted, false
	case how == granted:
		return granted, false
	case how == changed:
		return changed, v.landed(ctx, fl, f, raw)
	case fl.behind:
		v.flights.finish(fl.key, f, func() { f.err = errElsewhere })
		return elsewhere, true
	}
	if !fl.waited {
		fl.waited = true
		v.in().waited.WithLabelValues(v.name).Inc()
	}
	return elsewhere, v.waitFor(ctx, fl, f, news, wait)
}

// claimHere is claim for a store without Redis. What was kept since the look-up, by a Set above all, is newer than what is
// loaded now may be.
func (v *View[V]) claimHere(fl *fill, f *flight[V]) (over bool) {
	s := v.store
	if v.near == nil || s.rdb != nil {
		return false
	}
	fl.epoch = epoch(s.clock.known.Load())
	fl.ticket = v.near.ticket(s, fl.key, fl.id, s.now())
	r, p, ok := v.kept(fl.id, fl.need)
	if fl.blind != nil || !ok || p != fresh || r.rest.header.gen == fl.seen.header.gen {
		return false
	}
	v.flights.finish(fl.key, f, func() {
		f.value, f.asOf, f.wrote = r.value, r.rest.header.asOf, r.rest.header.seen
		if r.kind == kindNegative {
			f.err = ErrNotFound
		}
	})
	return true
}

// waitFor waits until another process's load has brought something, or has failed, or its claim has ended.
func (v *View[V]) waitFor(ctx context.Context, fl *fill, f *flight[V], news <-chan struct{}, wait time.Duration) (landed bool) {
	s := v.store
	defer s.queued.passOn(&f.turn)()
	slot := s.coverage.slot(fl.key)
	ended := time.NewTimer(max(wait, 0) + time.Millisecond)
	defer ended.Stop()
	for poll := firstPoll; ; poll = min(2*poll, lastPoll) {
		if s.coverage.at(slot, s.now()) != nil {
			poll = surePoll
		}
		timer := time.NewTimer(poll)
		over := false
		select {
		case <-news:
			over = true // once is enough: begin says how things stand
		case <-ended.C:
			over = true
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
		if over {
			return false
		}
		raw, err := s.get(ctx, fl.key)
		h, _, parse := parseHeader(raw)
		switch {
		case err != nil:
			return false
		case parse == nil && h.claim != 0 && h.claim > s.nodeTime(slot, s.now()) && (h.kind == kindLease || h.gen == fl.seen.header.gen && h.start == fl.seen.header.start):
			continue // still under way
		default:
			return v.landed(ctx, fl, f, raw)
		}
	}
}

// landed hands over what another fill has stored, if it serves this one.
func (v *View[V]) landed(ctx context.Context, fl *fill, f *flight[V], raw []byte) bool {
	if fl.blind != nil {
		return false
	}
	var e entry
	value := v.open(ctx, fl.id, raw, nil, fl.need, &e)
	if e.verdict >= negative {
		e = v.stands(ctx, e)
	}
	fl.seen = e
	switch {
	case !e.serves() || e.phase != fresh:
		return false
	case e.verdict == negative:
		v.flights.finish(fl.key, f, func() { f.asOf, f.wrote, f.err = e.header.asOf, e.header.seen, ErrNotFound })
	default:
		v.flights.finish(fl.key, f, func() {
			f.value, f.payload, f.plain, f.asOf, f.wrote = value, e.payload, e.header.plain, e.header.asOf, e.header.seen
		})
	}
	return true
}
