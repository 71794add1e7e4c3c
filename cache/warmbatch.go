package cache

import (
	"cmp"
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	warmLookups = 500 // keys that are looked up together
	warmBegins  = 500 // fills that begin together, at most
	// warmAhead is how long fills that began together should take: their claims end after claimTTL.
	warmAhead = claimTTL / 6
)

// warmLoad loads keys that are missing, and reports what it did as it goes.
type warmLoad func(ctx context.Context, missing map[string]*entry, told func(WarmSetReport))

// warmLoad returns what loads the keys of a set, and how many batches of keys it may have at a time.
func (v *View[V]) warmLoad(set WarmSet[V]) (load warmLoad, atATime int) {
	if set.LoadMany == nil {
		limit := cmp.Or(set.Concurrency, 8)
		w := &warmer[V]{v: v, load: set.Load, limit: limit, size: limit}
		return w.warm, 1
	}
	return func(ctx context.Context, missing map[string]*entry, told func(WarmSetReport)) {
		if err := v.store.calm(ctx); err != nil {
			told(WarmSetReport{Failed: len(missing), Error: err.Error()})
			return
		}
		var tally WarmSetReport
		v.shareMany(ctx, missing, nil, nil, set.LoadMany, v.store.stepTimeout(), func(_ string, _ V, err error) { tally.add(err) })
		told(tally)
	}, cmp.Or(set.Concurrency, 2)
}

// warmer loads keys for a warming. Fills begin in batches; then each is a load like any other.
type warmer[V any] struct {
	v     *View[V]
	load  Loader[V]
	limit int // loads at a time
	size  int // of the next batch
}

// warm loads the missing ones and reports after each batch. It returns when all have ended, or ctx did.
func (w *warmer[V]) warm(ctx context.Context, missing map[string]*entry, told func(WarmSetReport)) {
	fills := make([]*fill, 0, len(missing))
	for id, e := range missing {
		fills = append(fills, &fill{key: w.v.prefix + id, id: id, seen: *e})
	}
	for len(fills) > 0 && ctx.Err() == nil {
		if err := w.v.store.calm(ctx); err != nil {
			told(WarmSetReport{Failed: len(fills), Error: err.Error()})
			return
		}
		n := min(w.size, len(fills))
		began := time.Now()
		told(w.batch(ctx, fills[:n]))
		fills = fills[n:]
		w.size = nextSize(n, w.size, w.limit, time.Since(began))
	}
	if len(fills) > 0 {
		told(WarmSetReport{Failed: len(fills), Error: ctx.Err().Error()})
	}
}

// nextSize returns how many fills begin together, after n took so long: as many as end in time, and no sudden growth.
func nextSize(n, size, limit int, took time.Duration) int {
	inTime := int(warmAhead * time.Duration(n) / max(took, 1))
	return max(limit, min(inTime, 4*size, warmBegins))
}

func (w *warmer[V]) batch(ctx context.Context, fills []*fill) (tally WarmSetReport) {
	for _, fl := range fills {
		fl.tagged, fl.anyAge = w.v.tags != nil, w.v.opts.untracked
	}
	hows := w.v.store.beginMany(ctx, fills, w.v.store.stepTimeout())
	began := time.Now()
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(w.limit)
	for i, fl := range fills {
		group.Go(func() error {
			err := w.one(ctx, fl, hows[i] == granted && fl.leased, began)
			mu.Lock()
			defer mu.Unlock()
			tally.add(err)
			return nil
		})
	}
	_ = group.Wait()
	return tally
}

// one loads the value of a fill that began with others. Where it was not granted, or that was long ago, it begins anew.
func (w *warmer[V]) one(ctx context.Context, fl *fill, mayLoad bool, began time.Time) error {
	v, free := w.v, context.WithoutCancel(ctx)
	again := &fill{key: fl.key, id: fl.id, seen: fl.seen}
	if mayLoad && (ctx.Err() != nil || time.Since(began) > claimTTL/2) {
		v.store.release(free, fl)
		mayLoad = false
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !mayLoad {
		_, err := v.share(ctx, again, w.load)
		return err
	}
	f, mine := v.flights.join(fl.key, nil)
	if !mine { // it waits for our claim
		v.store.release(free, fl)
		_, err := v.await(ctx, f, false, nil)
		return err
	}
	go v.guarded(free, fl, f, func() { v.load(free, fl, f, w.load) })
	_, err := v.await(ctx, f, true, nil)
	return err
}
