package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/scaleaware/scaleaware"
)

// Loader gets the value of one key from its origin. It runs once for all callers who wait for the key, under a context
// with the first one's values, a deadline of Options.LoadTimeout and a watermark of its own, and must not write into
// what it returned. It returns ErrNotFound for what does not exist.
type Loader[V any] func(ctx context.Context, id string) (V, error)

// Load returns the cached value, or the loader's, which it then caches. Callers of one key share one load. The error
// is the loader's, a PanicError, ErrNotFound, ErrShed, ErrLoadTimeout, or the cause of ctx's end; never one of Redis.
func (v *View[V]) Load(ctx context.Context, id string, load Loader[V]) (V, error) {
	var zero V
	key, err := v.key(id)
	if err != nil {
		return zero, err
	}
	need, blind := v.need(ctx)
	var found entry
	if blind == nil {
		var value V
		value, found = v.fetch(ctx, key, need)
		v.account(ctx, found)
		switch {
		case found.verdict == hit:
			return value, nil
		case found.verdict == negative:
			return zero, ErrNotFound
		case ctx.Err() != nil:
			return zero, context.Cause(ctx)
		}
	} else {
		v.account(ctx, found)
	}
	return v.share(ctx, &fill{key: key, id: id, need: need, blind: blind, seen: found}, load)
}

// share loads with everybody else who waits for the key.
func (v *View[V]) share(ctx context.Context, fl *fill, load Loader[V]) (V, error) {
	need := fl.need
	f, began := &flight[V]{need: need, done: make(chan struct{})}, true
	if fl.blind == nil { // nobody can tell whom else such a load would serve
		f, began = v.flights.join(fl.key, fl.need)
		fl.need = f.need
	}
	if began {
		go v.run(context.WithoutCancel(ctx), fl, f, load)
	}
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
	if f.err != nil {
		return zero, f.err
	}
	v.saw(ctx, f.asOf)
	if began || f.payload == nil {
		return f.value, nil
	}
	var value V
	if err := v.opts.codec.Decode(f.payload, &value); err != nil {
		return f.value, nil
	}
	return value, nil
}

// run is the goroutine of one load.
func (v *View[V]) run(ctx context.Context, fl *fill, f *flight[V], load Loader[V]) {
	s := v.store
	if fillFrom(ctx) == nil { // a load inside a loader has its turn already
		if err := s.turn(ctx); err != nil {
			s.in.loads.WithLabelValues(v.name, "shed").Inc()
			v.flights.finish(fl.key, f, func() { f.err = err })
			return
		}
		defer s.loads.Release(1)
	}
	if !fl.seen.down {
		raw, err := s.begin(ctx, fl)
		if err != nil {
			s.in.failed(ctx, "lease", err, "view", v.name)
		}
		if v.landed(ctx, fl, f, raw) {
			return
		}
	}
	lctx, cancel := context.WithTimeoutCause(ctx, s.opts.LoadTimeout, ErrLoadTimeout)
	defer cancel()
	stop := context.AfterFunc(lctx, func() { // frees the waiters of a loader that ignores its context
		v.flights.finish(fl.key, f, func() {
			f.err = ErrLoadTimeout
			s.in.loads.WithLabelValues(v.name, "timeout").Inc()
		})
	})
	wctx, w := fl.watch(lctx)
	returned := false
	defer func() { // the loader ended the goroutine (runtime.Goexit)
		if !returned {
			v.flights.finish(fl.key, f, func() { f.err = &PanicError{Stack: debug.Stack()} })
		}
	}()
	value, err := protect(wctx, fl.id, load)
	returned = true
	if !stop() {
		return // too late for the waiters, and the lease may have ended
	}
	v.conclude(ctx, fl, f, w, value, err)
}

// landed hands over what another fill has stored between the look-up and the lease, if it serves this one.
func (v *View[V]) landed(ctx context.Context, fl *fill, f *flight[V], raw []byte) bool {
	if raw == nil || fl.blind != nil {
		return false
	}
	value, e := v.open(ctx, raw, nil, fl.need)
	switch e.verdict {
	case hit:
		v.flights.finish(fl.key, f, func() { f.value, f.payload, f.asOf, f.wrote = value, e.payload, e.header.asOf, e.header.seen })
	case negative:
		v.flights.finish(fl.key, f, func() { f.err = ErrNotFound })
	case unusable:
		fl.leased = false
		return false
	default:
		return false
	}
	return true
}

// conclude stores what the loader returned and hands it to the waiters.
func (v *View[V]) conclude(ctx context.Context, fl *fill, f *flight[V], w *scaleaware.Watermark, value V, err error) {
	s, asOf := v.store, w.AsOf()
	if fl.ageless.Load() || slices.ContainsFunc(asOf, scaleaware.Token.Unknown) {
		asOf = nil
	}
	var wrote, settled scaleaware.Tokens
	if fl.blind == nil {
		noted := w.Changes()
		written, _ := w.Written(ctx)
		for _, t := range fl.need {
			if now := written.For(t.System); t.Unknown() && !now.Unknown() {
				settled = append(settled, now)
			}
		}
		if noted != fl.noted { // even if fl.need covers it: not all waiters need as much
			wrote = written
		}
	}
	outcome, k := "ok", kindValue
	var payload []byte
	switch panicked := (*PanicError)(nil); {
	case err == nil:
		var encodeErr error
		if payload, encodeErr = v.opts.codec.Encode(value); encodeErr != nil {
			s.in.failed(ctx, "encode", encodeErr, "view", v.name)
			payload, k = nil, 0
		}
	case errors.Is(err, ErrNotFound):
		outcome, k = "not_found", kindNegative
		if v.opts.negative == 0 {
			k = 0
		}
	case errors.As(err, &panicked):
		outcome, k = "panic", 0
		s.in.log.ErrorContext(ctx, "cache: loader panicked", "view", v.name, "panic", panicked.Value, "stack", string(panicked.Stack))
	default:
		outcome, k = "error", 0
	}
	s.in.loads.WithLabelValues(v.name, outcome).Inc()
	if slices.ContainsFunc(wrote, scaleaware.Token.Unknown) {
		k = 0 // its later readers could not be told what they have seen
	}
	if k != 0 {
		v.land(ctx, s, fl, header{kind: k, asOf: asOf, seen: wrote}, payload)
	}
	v.flights.finish(fl.key, f, func() {
		f.value, f.payload, f.asOf, f.wrote, f.settled, f.err = value, payload, asOf, wrote, settled, err
	})
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

// turn waits until the origin may have one more load.
func (s *Store) turn(ctx context.Context) error {
	if s.loads.TryAcquire(1) {
		return nil
	}
	if s.opts.LoadWait < 0 {
		return ErrShed
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.LoadWait)
	defer cancel()
	if err := s.loads.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("%w (waited %v)", ErrShed, s.opts.LoadWait.Round(time.Millisecond))
	}
	return nil
}
