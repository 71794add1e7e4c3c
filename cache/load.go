package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/scaleaware/scaleaware"
)

// Loader gets the value of one key from its origin. It runs once for all callers who wait for the key, under a context
// with the first one's values, a deadline of Options.LoadTimeout and a watermark of its own, and must not write into
// what it returned. It returns ErrNotFound for what does not exist. When news have overtaken what it returned, it runs again,
// up to three times, each with a deadline of its own, and the callers wait for that, too.
type Loader[V any] func(ctx context.Context, id string) (V, error)

// Load returns the cached value, or the loader's, which it then caches. Callers of one key share one load, those of other
// processes, too. The error is the loader's, a PanicError, ErrNotFound, ErrShed, ErrLoadTimeout, or the cause of ctx's
// end; never one of Redis. With StaleIfError a stale value takes the place of all but ErrNotFound and ctx's end.
func (v *View[V]) Load(ctx context.Context, id string, load Loader[V]) (V, error) {
	var zero V
	if err := v.check(id); err != nil {
		return zero, err
	}
	need, blind := v.need(ctx)
	if v.near != nil && blind == nil {
		r, p, ok := v.kept(id, need)
		switch {
		case ok:
			if p != fresh || v.opts.early > 0 && v.early(&r.rest.header, r.fresh-v.store.now()) {
				v.refresh(ctx, &fill{key: v.prefix + id, id: id, need: need, seen: entry{verdict: hit, header: r.rest.header}}, load)
			} else if v.store.verifies() && r.kind == kindValue {
				v.verify(ctx, id, r.value, r.rest.header, load)
			}
			return r.value, v.given(ctx, r, p)
		case p == onError && v.store.redisOff():
			e := entry{verdict: hit, header: r.rest.header, phase: p, down: true}
			return v.shareOr(ctx, &fill{key: v.prefix + id, id: id, need: need, seen: e}, load, r.value)
		}
	}
	key := v.prefix + id
	var found entry
	var value V
	if blind == nil {
		value, found = v.fetch(ctx, key, id, need)
	}
	looked := v.note(ctx, &found)
	fl := &fill{key: key, id: id, need: need, blind: blind, seen: found}
	if found.verdict == hit && found.phase == onError && ctx.Err() == nil {
		return v.shareOr(ctx, fl, load, value)
	}
	v.count(looked, 1)
	switch {
	case found.serves():
		if found.phase != fresh || v.early(&found.header, found.left) {
			v.refresh(ctx, fl, load)
		} else if v.store.verifies() && found.verdict == hit {
			v.verify(ctx, id, value, found.header, load)
		}
		if found.verdict == negative {
			return zero, ErrNotFound
		}
		return value, nil
	case blind == nil && ctx.Err() != nil:
		return zero, context.Cause(ctx)
	}
	return v.share(ctx, fl, load)
}

// shareOr is share for a caller who has a stale value to fall back on. It counts the look-up.
func (v *View[V]) shareOr(ctx context.Context, fl *fill, load Loader[V], stale V) (V, error) {
	stales := fl.seen.header // the flight may change what it has seen
	wctx, cancel := ctx, context.CancelFunc(func() {})
	if v.opts.softTimeout > 0 {
		wctx, cancel = context.WithTimeoutCause(ctx, v.opts.softTimeout, errSoftTimeout)
	}
	defer cancel()
	value, err := v.share(wctx, fl, load)
	if err == nil || errors.Is(err, ErrNotFound) || ctx.Err() != nil {
		v.count(resultMiss, 1)
		return value, err
	}
	v.count(resultStale, 1)
	v.in().fallbacks.WithLabelValues(v.name).Inc()
	v.store.in.failed(ctx, "stale", err, "view", v.name)
	v.told(ctx, &stales)
	return stale, nil
}

var errSoftTimeout = errors.New("cache: the loader did not return within SoftTimeout")

// share loads with everybody else who waits for the key.
func (v *View[V]) share(ctx context.Context, fl *fill, load Loader[V]) (V, error) {
	need := fl.need
	f, began := &flight[V]{need: need, done: make(chan struct{})}, true
	if fl.blind == nil { // nobody can tell whom else such a load would serve
		f, began = v.flights.join(fl.key, fl.need)
		fl.need = f.need
	}
	if fillFrom(ctx) != nil {
		f.turn.lend()
	}
	if began {
		go v.run(context.WithoutCancel(ctx), fl, f, load)
	}
	return v.await(ctx, f, began, need)
}

// await waits for a load and returns what it brought.
func (v *View[V]) await(ctx context.Context, f *flight[V], began bool, need scaleaware.Tokens) (V, error) {
	var zero V
	if err := f.wait(ctx); err != nil {
		return zero, err
	}
	w := scaleaware.WatermarkFrom(ctx)
	if began { // nobody who joins has an unknown position
		for _, t := range f.settled {
			w.Settle(need.For(t.System), t)
		}
	}
	for _, t := range f.wrote {
		w.Raise(t)
	}
	if f.err == nil || errors.Is(f.err, ErrNotFound) { // which is an answer, too
		v.saw(ctx, f.asOf)
	}
	if f.err != nil {
		return zero, f.err
	}
	if began || f.payload == nil {
		return f.value, nil
	}
	var value V
	if err := v.unpack(&entry{header: header{plain: f.plain}, payload: f.payload}, &value); err != nil {
		return f.value, nil
	}
	return value, nil
}

// run is the goroutine of one load.
func (v *View[V]) run(ctx context.Context, fl *fill, f *flight[V], load Loader[V]) {
	v.guarded(ctx, fl, f, func() {
		if !v.claim(ctx, fl, f) {
			v.load(ctx, fl, f, load)
		}
	})
}

// guarded calls what a load's goroutine does, and ends the load if that ends the goroutine.
func (v *View[V]) guarded(ctx context.Context, fl *fill, f *flight[V], do func()) {
	returned := false
	defer func() {
		if !returned {
			v.abandon(ctx, map[string]*flight[V]{fl.id: f}, fl)
		}
	}()
	do()
	returned = true
}

// abandon ends loads whose goroutine was ended by what it called: the loader, the codec or Tags (runtime.Goexit).
func (v *View[V]) abandon(ctx context.Context, flights map[string]*flight[V], fills ...*fill) {
	ended, n := &PanicError{Stack: debug.Stack()}, 0
	for _, fl := range fills {
		if v.fail(fl, flights[fl.id], ended) {
			n++
		}
	}
	if n > 0 { // else it is counted as what has ended them before
		v.in().loads.WithLabelValues(v.name, "panic").Add(float64(n))
		v.tellPanic(ctx, ended)
	}
	if !fills[0].behind { // as in conclude
		v.store.releaseMany(ctx, fills)
	}
}

// load calls the loader when it is its turn, and hands on what it returns.
func (v *View[V]) load(ctx context.Context, fl *fill, f *flight[V], load Loader[V]) {
	s := v.store
	returned, leave := false, func(bool) {}
	if fillFrom(ctx) == nil { // a load inside a loader has its turn already
		done, err := s.turn(ctx, fl.behind, &f.turn)
		if err != nil {
			s.in.loads.WithLabelValues(v.name, "shed").Inc()
			v.fail(fl, f, err)
			s.release(ctx, fl)
			return
		}
		leave = done
	}
	lctx, cancel := context.WithTimeoutCause(ctx, s.opts.LoadTimeout, ErrLoadTimeout)
	defer cancel()
	stop := context.AfterFunc(lctx, func() { // frees the waiters of a loader that ignores its context
		if v.fail(fl, f, ErrLoadTimeout) {
			s.in.loads.WithLabelValues(v.name, "timeout").Inc()
		}
	})
	unclaim := s.keepClaims(lctx, fl)
	wctx, w := fl.watch(lctx)
	defer func() {
		if !returned {
			stop()
			leave(false)
			unclaim()
		}
	}()
	value, err := protect(wctx, fl.id, load)
	unclaim()
	returned = true
	leave(err == nil || errors.Is(context.Cause(lctx), ErrLoadTimeout)) // the origin is free, whatever storing takes
	if !stop() {
		s.release(ctx, fl)
		return // too late for the waiters, and the lease may have ended
	}
	if v.conclude(ctx, fl, f, w, value, err) {
		s.anew(ctx, fl)
		v.load(ctx, fl, f, load)
	}
}

// fail ends a load that brought nothing, and reports whether it was that which ended it.
func (v *View[V]) fail(fl *fill, f *flight[V], err error) (ended bool) {
	v.flights.finish(fl.key, f, func() { f.err, ended = err, true })
	return ended
}

// prepare encodes what the loader returned. store is false for what is not kept.
func (v *View[V]) prepare(ctx context.Context, id string, value V, err error) (h header, payload []byte, store bool) {
	s := v.store
	outcome := "ok"
	h.kind, store = kindValue, true
	switch panicked := (*PanicError)(nil); {
	case err == nil:
		if payload, err = v.encode(value); err != nil {
			s.in.failed(ctx, "encode", err, "view", v.name)
			payload, store = nil, false
		}
		if h.tags, err = v.tagsFor(id, value); err != nil {
			s.in.failed(ctx, "tags", err, "view", v.name)
			store = false
		}
	case errors.Is(err, ErrNotFound):
		outcome, h.kind, store = "not_found", kindNegative, v.opts.negative > 0
	case errors.As(err, &panicked):
		outcome, store = "panic", false
		v.tellPanic(ctx, panicked)
	default:
		outcome, store = "error", false
	}
	s.in.loads.WithLabelValues(v.name, outcome).Inc()
	if outcome == "ok" || outcome == "not_found" {
		v.window.add(time.Now(), resultLoad, 1)
	}
	return h, payload, store
}

func (v *viewState) tellPanic(ctx context.Context, p *PanicError) {
	v.in().log.ErrorContext(ctx, "cache: loader panicked", "view", v.name, "panic", p.Value, "stack", string(p.Stack))
}

// protect runs the loader and turns its panic into an error.
func protect[V any](ctx context.Context, id string, load Loader[V]) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return load(ctx, id)
}

// keepLoaded puts a value into the process in a store without Redis.
func (v *View[V]) keepLoaded(fl *fill, h header, value V, payload []byte) {
	if v.near == nil {
		return
	}
	l := v.lifeOf(v.store, fl.id, h.kind)
	h.gen, h.start, h.epoch = generation(rand.Uint64()), 1, fl.epoch
	if !fl.began.IsZero() {
		h.cost = costSince(fl.began)
	}
	e := entry{header: h, payload: payload, left: l.physical - (l.whole - l.fresh), sure: l.physical}
	for _, tag := range h.tags {
		e.tags = append(e.tags, v.store.tags.here(tag, v.store.coverage.at(0, v.store.now())))
	}
	if !slices.ContainsFunc(e.tags, func(t *tagState) bool { return t.epoch > h.epoch }) {
		v.keep(fl.id, fl.ticket, value, e)
	}
}
