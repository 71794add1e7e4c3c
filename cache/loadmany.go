package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/scaleaware/scaleaware"
)

// ManyLoader gets the values of several keys from their origin at once, under the terms of Loader. A key that is neither
// in the map nor in the error does not exist. When only some could be had, it returns them with a KeyErrors that names
// the others: a key that is in neither then fails with one of its errors, unless all of them are ErrNotFound. After any
// other error nothing is taken from the map, and no key counts as not existing, be the batch one key, and the error one that
// wraps ErrNotFound: the callers' errors do not wrap that.
type ManyLoader[V any] func(ctx context.Context, ids []string) (map[string]V, error)

// LoadMany returns the cached values of ids, and the loader's of those that are not cached, which it then caches. The
// loader is called once for the keys that nobody else loads already, and again for those of them that news have overtaken, as
// a Loader is; for a key that another process has begun to load, and does not bring, it is called with that alone. Callers of
// a key share its load with those of Load. A key that does not exist is in neither the map nor the error. The error is a
// KeyErrors, with Load's errors; the map is right beside it.
func (v *View[V]) LoadMany(ctx context.Context, ids []string, load ManyLoader[V]) (map[string]V, error) {
	found, failed := make(map[string]V, len(ids)), make(KeyErrors)
	if v.err != nil {
		return found, v.err
	}
	need, blind := v.need(ctx)
	missing, stale := map[string]*entry{}, map[string]V{}
	var behind []*fill
	var ended tally
	take := func(id string, value V, e *entry) {
		looked := v.note(ctx, e)
		if e.verdict == hit && e.phase == onError { // how it ends is not known yet
			stale[id], missing[id] = value, e.kept()
			return
		}
		ended[looked]++
		if !e.serves() {
			missing[id] = e.kept()
			return
		}
		if e.verdict == hit {
			found[id] = value
		}
		if e.phase != fresh || v.early(&e.header, e.left) {
			behind = append(behind, &fill{key: v.prefix + id, id: id, need: need, seen: *e})
		} else if e.verdict == hit && v.store.verifies() {
			v.verify(ctx, id, value, e.header, single(load))
		}
	}
	if blind == nil {
		v.each(ctx, ids, need, true, failed, take)
	} else {
		for _, id := range ids {
			if err := v.check(id); err != nil {
				failed[id] = err
			} else {
				take(id, *new(V), &entry{})
			}
		}
	}
	v.countAll(&ended)
	for _, fl := range behind {
		v.refresh(ctx, fl, single(load))
	}
	if ctx.Err() != nil && len(missing) > 0 {
		for id := range missing {
			failed[id] = context.Cause(ctx)
		}
		v.count(resultMiss, int64(len(stale)))
		return found, failed
	}
	v.shareMany(ctx, missing, need, blind, load, v.store.opts.RedisTimeout, func(id string, value V, err error) {
		fallback, ok := stale[id]
		result := resultMiss
		switch {
		case err == nil:
			found[id] = value
		case errors.Is(err, ErrNotFound):
		case ok && ctx.Err() == nil:
			result = resultStale
			v.in().fallbacks.WithLabelValues(v.name).Inc()
			v.in().failed(ctx, "stale", err, "view", v.name)
			h := missing[id].header
			v.told(ctx, &h)
			found[id] = fallback
		default:
			failed[id] = err
		}
		if ok {
			v.count(result, 1)
		}
	})
	return found, failed.orNil()
}

// single makes a Loader of a ManyLoader.
func single[V any](load ManyLoader[V]) Loader[V] {
	return func(ctx context.Context, id string) (V, error) {
		values, err := load(ctx, []string{id})
		return answers(values, err)(id)
	}
}

// answers says what a ManyLoader's answer means for each key.
func answers[V any](values map[string]V, err error) func(id string) (V, error) {
	var some KeyErrors
	if err != nil && !errors.As(err, &some) {
		whole := &batchError{err}
		return func(string) (V, error) { return *new(V), whole }
	}
	var missing error = ErrNotFound
	for _, err := range some { // of a batch that is not whole nothing can be said to be missing
		if err != nil && !errors.Is(err, ErrNotFound) {
			missing = err
			break
		}
	}
	return func(id string) (V, error) {
		if err := some[id]; err != nil {
			return *new(V), err
		}
		if value, ok := values[id]; ok {
			return value, nil
		}
		return *new(V), missing
	}
}

// batchError is the error of a whole batch: that something was not found does not say so of each key.
type batchError struct{ error }

func (e *batchError) Is(target error) bool {
	return target != ErrNotFound && errors.Is(e.error, target)
}
func (e *batchError) As(target any) bool { return errors.As(e.error, target) }

// shareMany loads what is missing with everybody else who waits for it, and hands over each key's outcome. Each go with Redis
// takes no longer than timeout.
func (v *View[V]) shareMany(ctx context.Context, missing map[string]*entry, need scaleaware.Tokens, blind error, load ManyLoader[V], timeout time.Duration, got func(string, V, error)) {
	type waiting struct {
		id     string
		flight *flight[V]
		began  bool
	}
	flights := make([]waiting, 0, len(missing))
	mine, own := make([]*fill, 0, len(missing)), make(map[string]*flight[V], len(missing))
	for _, id := range slices.Sorted(maps.Keys(missing)) {
		key := v.prefix + id
		f, began := (*flight[V])(nil), true
		if blind == nil {
			f, began = v.flights.join(key, need)
		} else {
			f = &flight[V]{need: need, done: make(chan struct{})}
		}
		flights = append(flights, waiting{id, f, began})
		if began {
			mine, own[id] = append(mine, &fill{key: key, id: id, need: f.need, blind: blind, seen: *missing[id]}), f
		}
	}
	if len(mine) > 0 {
		go v.runMany(context.WithoutCancel(ctx), mine, own, load, timeout)
	}
	for _, w := range flights {
		if fillFrom(ctx) != nil {
			w.flight.turn.lend()
		}
		value, err := v.await(ctx, w.flight, w.began, need)
		got(w.id, value, err)
	}
}

// runMany is the goroutine of one batch. Keys that another process loads are waited for one by one.
func (v *View[V]) runMany(ctx context.Context, fills []*fill, flights map[string]*flight[V], load ManyLoader[V], timeout time.Duration) {
	batch := make([]*fill, 0, len(fills))
	for _, fl := range fills {
		fl.tagged, fl.anyAge = v.tags != nil, v.opts.untracked
	}
	for i, how := range v.store.beginMany(ctx, fills, timeout) {
		switch fl := fills[i]; how {
		case granted:
			if !v.claimHere(fl, flights[fl.id]) {
				batch = append(batch, fl)
			}
		default:
			go v.run(ctx, fl, flights[fl.id], single(load))
		}
	}
	if len(batch) > 0 {
		v.loadMany(ctx, batch, flights, load, timeout)
	}
}

// beginMany begins fills in one pipeline a node. Without Redis all are granted.
func (s *Store) beginMany(ctx context.Context, fills []*fill, timeout time.Duration) []begun {
	hows := make([]begun, len(fills))
	epoch := s.epochNow(ctx, len(fills) > 0 && fills[0].tagged)
	calls := make([]keyCall, 0, len(fills))
	of := make([]int, 0, len(fills)) // of calls, which fill
	var shared []any
	own := make([]any, 0, len(fills)) // arguments of all
	for i, fl := range fills {
		fl.epoch, hows[i] = epoch, granted
		if fl.seen.down || s.redisOff() {
			continue
		}
		if n := len(of); n == 0 || !slices.Equal(fl.need, fills[of[n-1]].need) {
			shared = s.beginShared(fl)
		}
		before := len(own)
		own = fl.beginArgs(own)
		calls, of = append(calls, keyCall{key: fl.key, shared: shared, args: own[before:]}), append(of, i)
	}
	s.callMany(ctx, beginScript, calls, timeout)
	for n, c := range calls {
		i, err := of[n], c.err
		if err == nil {
			hows[i], _, _, err = s.began(fills[i], c.reply)
		}
		if err != nil {
			hows[i] = granted // and nothing is stored
			s.in.failed(ctx, "lease", err)
		}
	}
	return hows
}

// loadMany calls the loader for a batch when it is its turn.
func (v *View[V]) loadMany(ctx context.Context, batch []*fill, flights map[string]*flight[V], load ManyLoader[V], timeout time.Duration) {
	s := v.store
	whole, ids := &fill{blind: batch[0].blind}, make([]string, len(batch))
	for i, fl := range batch {
		ids[i] = fl.id
		whole.need = whole.need.Merge(fl.need)
	}
	finish := func(err error) (ended bool) {
		for _, fl := range batch {
			ended = v.fail(fl, flights[fl.id], err) || ended
		}
		return ended
	}
	giveUp := func() { s.releaseMany(ctx, batch) }
	leave := func(bool) {}
	if fillFrom(ctx) == nil {
		lent := make([]*lentTurn, len(batch))
		for i, fl := range batch {
			lent[i] = &flights[fl.id].turn
		}
		done, err := s.turn(ctx, false, lent...)
		if err != nil {
			s.in.loads.WithLabelValues(v.name, "shed").Inc()
			finish(err)
			giveUp()
			return
		}
		leave = done
	}
	lctx, cancel := context.WithTimeoutCause(ctx, s.opts.LoadTimeout, ErrLoadTimeout)
	defer cancel()
	stop := context.AfterFunc(lctx, func() {
		if finish(ErrLoadTimeout) {
			s.in.loads.WithLabelValues(v.name, "timeout").Inc()
		}
	})
	unclaim := s.keepClaims(lctx, slices.Clone(batch)...)
	wctx, w := whole.watch(lctx)
	returned, over := false, false
	defer func() { // as in load and run
		if !returned {
			leave(false)
			unclaim()
		}
		if !over {
			v.abandon(ctx, flights, batch...)
		}
	}()
	values, err := protect(wctx, "", func(ctx context.Context, _ string) (map[string]V, error) { return load(ctx, ids) })
	unclaim()
	returned = true
	leave(err == nil || errors.Is(context.Cause(lctx), ErrLoadTimeout)) // as in load
	if !stop() {
		over = true
		giveUp()
		return
	}
	for _, fl := range batch {
		fl.noted, fl.began = whole.noted, whole.began
		fl.ageless.Store(whole.ageless.Load())
	}
	again := v.concludeMany(ctx, batch, flights, w, answers(values, err), timeout)
	over = true
	if len(again) > 0 {
		s.anew(ctx, again...)
		v.loadMany(ctx, again, flights, load, timeout)
	}
}
