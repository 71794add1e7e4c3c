package cache

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"
)

// errElsewhere ends a refresh that another process has begun.
var errElsewhere = errors.New("cache: another process loads the value")

// shedPause is how long a process does not try again to refresh a value for which the origin had no room. Others may.
const shedPause = time.Second

// refresh loads a value anew behind the caller's back, once at a time in the process, and in all processes.
func (v *View[V]) refresh(ctx context.Context, fl *fill, load Loader[V]) {
	if s := v.store; s.rdb != nil && fl.seen.header.claim > s.nodeTime(s.coverage.slot(fl.key), s.now()) {
		return // somebody loads it
	}
	if _, runs := v.refreshing.LoadOrStore(fl.key, struct{}{}); runs {
		return
	}
	fl.behind = true
	ctx = context.WithValue(context.WithoutCancel(ctx), fillKey{}, (*fill)(nil)) // a loader that began it does not wait for it
	go func() {
		f := &flight[V]{need: fl.need, done: make(chan struct{})}
		defer v.refreshed(ctx, fl, f) // also when the loader has ended the goroutine
		v.run(ctx, fl, f, load)
	}()
}

// refreshed counts how a refresh has ended, and lets the next one begin.
func (v *View[V]) refreshed(ctx context.Context, fl *fill, f *flight[V]) {
	<-f.done
	outcome, next := "ok", func() { v.refreshing.Delete(fl.key) }
	switch {
	case f.err == nil, errors.Is(f.err, errElsewhere), errors.Is(f.err, ErrNotFound):
	case errors.Is(f.err, ErrShed):
		outcome = "shed"
	default:
		outcome = "error"
		v.store.in.failed(ctx, "refresh", f.err, "view", v.name)
	}
	v.in().refreshes.WithLabelValues(v.name, outcome).Inc()
	if outcome == "shed" {
		time.AfterFunc(shedPause, next)
		return
	}
	next()
}

// early decides whether an entry that is still fresh is loaded anew: when its life that is left is less than what the
// last load took, times beta, times -ln of a random number.
func (v *viewState) early(h *header, left time.Duration) bool {
	if v.opts.early == 0 || h.kind != kindValue {
		return false
	}
	cost := time.Duration(h.cost) * time.Microsecond
	return float64(left) <= -math.Log(1-rand.Float64())*v.opts.early*float64(cost)
}
