package cache

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
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
	done, err := s.turn(ctx, true)
	if err != nil {
		return "skipped"
	}
	defer done(false)
	lctx, cancel := context.WithTimeoutCause(ctx, s.opts.LoadTimeout, ErrLoadTimeout)
	defer cancel()
	fl := &fill{id: id, blind: errVerify}
	wctx, _ := fl.watch(lctx)
	value, err := protect(wctx, id, load)
	gone := errors.Is(err, ErrNotFound)
	if err != nil && !gone {
		return "failed"
	}
	have, err1 := v.opts.codec.Encode(served)
	want, err2 := v.opts.codec.Encode(value)
	switch {
	case err1 != nil || !gone && err2 != nil:
		return "failed"
	case !gone && bytes.Equal(have, want):
		return "same"
	}
	if sleep(lctx, verifyGrace) != nil {
		return "failed"
	}
	var raw []byte
	err = s.call(lctx, v.prefix+id, func(ctx context.Context) (err error) {
		raw, err = s.get(ctx, v.prefix+id)
		return err
	})
	now, _, parse := parseHeader(raw)
	if err == nil && parse == nil && now.kind == h.kind && now.gen == h.gen && now.start == h.start {
		var e entry
		v.judge(s, id, raw, nil, &e)
		if e = v.stands(lctx, e); e.serves() && e.phase == fresh {
			return "stale"
		}
	}
	return "changed"
}
