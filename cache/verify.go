package cache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"time"
)

// verifyGrace is how long an invalidation may be on its way: who changes a row deletes its entry after the commit.
const verifyGrace = time.Second

// errVerify makes loaders read where everything is seen.
var errVerify = errors.New("cache: the value is compared with its origin")

// verifies decides whether a hit is compared with its origin.
func (s *Store) verifies() bool {
	return s.opts.Verify > 0 && rand.Float64() < s.opts.Verify
}

// verify compares a value that was served with what its origin has now, behind the caller's back: a difference that is
// still there after an invalidation should have come is a value that was not invalidated.
func (v *View[V]) verify(ctx context.Context, id string, served V, h header, load Loader[V]) {
	ctx = context.WithoutCancel(ctx)
	go func() {
		outcome := v.compare(ctx, id, served, h, load)
		v.in().verified.WithLabelValues(v.name, outcome).Inc()
		if outcome == "stale" {
			v.in().log.WarnContext(ctx, "cache: an entry differs from its origin and was not invalidated; delete it where the value is changed, after the commit", "view", v.name)
		}
	}()
}

func (v *View[V]) compare(ctx context.Context, id string, served V, h header, load Loader[V]) (outcome string) {
	s := v.store
	lctx, cancel := context.WithTimeoutCause(ctx, s.opts.LoadTimeout, ErrLoadTimeout)
	defer cancel()
	value, err := v.origin(lctx, id, load)
	if errors.Is(err, ErrShed) {
		return "skipped"
	}
	gone := errors.Is(err, ErrNotFound)
	if err != nil && !gone {
		return "failed"
	}
	same, err := v.same(served, value)
	switch {
	case err != nil && !gone:
		return "failed"
	case same && !gone:
		return "same"
	}
	if sleep(lctx, verifyGrace) != nil {
		return "failed"
	}
	if v.stillThere(lctx, id, h) {
		return "stale"
	}
	return "changed"
}

// origin gets a value from where everything is seen, when the origin may have one more load.
func (v *View[V]) origin(ctx context.Context, id string, load Loader[V]) (V, error) {
	done, err := v.store.turn(ctx, true)
	if err != nil {
		return *new(V), err
	}
	defer done(false)
	fl := &fill{id: id, blind: errVerify}
	ctx, _ = fl.watch(ctx)
	return protect(ctx, id, load)
}

// same reports whether two values are equal for who reads them back. Not all codecs write equal values, such as maps, alike.
func (v *View[V]) same(a, b V) (bool, error) {
	as, err1 := v.encode(a)
	bs, err2 := v.encode(b)
	if err := errors.Join(err1, err2); err != nil || bytes.Equal(as, bs) {
		return err == nil, err
	}
	var x, y V // others may hold what a and b point to
	err := errors.Join(v.decode(as, &x), v.decode(bs, &y))
	return err == nil && reflect.DeepEqual(x, y), err
}

// stillThere reports whether the entry that had a header is served, and fresh.
func (v *View[V]) stillThere(ctx context.Context, id string, h header) bool {
	s := v.store
	same := func(now header) bool { return now.kind == h.kind && now.gen == h.gen && now.start == h.start }
	if s.rdb == nil {
		r, p, ok := v.kept(id, nil)
		return ok && p == fresh && same(r.rest.header)
	}
	raw, err := s.get(ctx, v.prefix+id)
	now, _, parse := parseHeader(raw)
	if err != nil || parse != nil || !same(now) {
		return false
	}
	var e entry
	v.judge(s, id, raw, nil, &e)
	e = v.stands(ctx, e)
	return e.serves() && e.phase == fresh
}
