package cache

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// verdict is what an entry is to one caller.
type verdict int

const (
	absent   verdict = iota // nothing, or a lease
	unusable                // of no form, codec or schema that this view reads
	tooOld                  // for this caller
	negative
	hit
)

// entry is what a look-up found.
type entry struct {
	verdict verdict
	header  header
	payload []byte
	bad     string // SHA-1 of an unusable value
	err     error  // of Redis, or of not knowing what the caller wrote
	down    bool   // Redis did not answer: do not ask it again for this call
}

// judge decides what raw is to a caller that must see need. A nil raw is absent.
func (v *viewState) judge(raw []byte, need scaleaware.Tokens, maxPayload int) entry {
	if raw == nil {
		return entry{}
	}
	h, payload, err := parseHeader(raw)
	switch {
	case err == nil && h.kind == kindLease:
		return entry{header: h}
	case err != nil, h.schema != v.schema, h.codec != v.opts.codec.ID(), len(payload) > maxPayload:
		return unusableEntry(raw)
	case !v.fresh(h, need):
		return entry{verdict: tooOld, header: h}
	case h.kind == kindNegative:
		return entry{verdict: negative, header: h}
	default:
		return entry{verdict: hit, header: h, payload: payload}
	}
}

func unusableEntry(raw []byte) entry {
	sum := sha1.Sum(raw)
	return entry{verdict: unusable, bad: hex.EncodeToString(sum[:])}
}

// need returns what the caller of ctx has written and must see.
func (v *viewState) need(ctx context.Context) (scaleaware.Tokens, error) {
	if v.opts.untracked {
		return nil, nil
	}
	return scaleaware.WatermarkFrom(ctx).Written(ctx)
}

// fetch reads one entry and decodes it.
func (v *View[V]) fetch(ctx context.Context, key string, need scaleaware.Tokens) (V, entry) {
	rctx, cancel := context.WithTimeout(ctx, v.store.opts.RedisTimeout)
	raw, err := v.store.rdb.Get(rctx, key).Bytes()
	cancel()
	return v.open(ctx, raw, err, need)
}

// open turns Redis's answer to a GET into a value. It counts nothing.
func (v *View[V]) open(ctx context.Context, raw []byte, err error, need scaleaware.Tokens) (value V, e entry) {
	switch {
	case errors.Is(err, redis.Nil):
		return value, entry{}
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return value, entry{verdict: unusable}
	case err != nil:
		return value, entry{err: err, down: true}
	}
	e = v.judge(raw, need, v.store.opts.MaxValueBytes)
	if e.verdict == hit {
		if err := v.opts.codec.Decode(e.payload, &value); err != nil {
			v.store.in.failed(ctx, "decode", err, "view", v.name)
			var zero V
			return zero, unusableEntry(raw)
		}
	} else if e.verdict == unusable {
		v.store.in.failed(ctx, "decode", errWire, "view", v.name)
	}
	return value, e
}

// account counts a look-up, and tells the caller's watermark how old the answer is.
func (v *View[V]) account(ctx context.Context, e entry) {
	r := resultMiss
	switch e.verdict {
	case hit:
		r = resultL2
	case negative:
		r = resultNegative
	}
	v.window.add(time.Now(), r)
	v.looked[r].Inc()
	if e.down && ctx.Err() == nil {
		v.store.in.failed(ctx, "read", e.err, "view", v.name)
	}
	if r != resultMiss {
		v.saw(ctx, e.header.asOf)
		if !v.opts.untracked {
			w := scaleaware.WatermarkFrom(ctx)
			for _, t := range e.header.seen {
				w.Raise(t)
			}
		}
	}
}

// saw tells whoever reads under ctx how old an answer is. A load that uses an answer of unknown age has a result of
// unknown age.
func (v *viewState) saw(ctx context.Context, asOf scaleaware.Tokens) {
	if v.opts.untracked {
		return
	}
	w := scaleaware.WatermarkFrom(ctx)
	for _, t := range asOf {
		w.Saw(t)
	}
	if len(asOf) == 0 {
		if outer := fillFrom(ctx); outer != nil {
			outer.ageless.Store(true)
		}
	}
}

// Get returns the cached value. The error is, or wraps, ErrMiss when there is none that this caller may use, also when
// Redis does not answer in time; ErrNotFound when the cache knows that the origin has no such value.
func (v *View[V]) Get(ctx context.Context, id string) (V, error) {
	var zero V
	key, err := v.key(id)
	if err != nil {
		return zero, err
	}
	need, err := v.need(ctx)
	if err != nil {
		v.account(ctx, entry{})
		return zero, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	value, e := v.fetch(ctx, key, need)
	v.account(ctx, e)
	return value, e.missErr()
}

func (e entry) missErr() error {
	switch {
	case e.verdict == hit:
		return nil
	case e.verdict == negative:
		return ErrNotFound
	case e.err != nil:
		return fmt.Errorf("%w: Redis: %w", ErrMiss, e.err)
	default:
		return ErrMiss
	}
}

// GetMany returns the cached values of ids that this caller may use; the others are not in the map. On a cluster each
// node is asked once. The error is a KeyErrors with the keys that could not be looked up; the map is right beside it.
func (v *View[V]) GetMany(ctx context.Context, ids []string) (map[string]V, error) {
	found, failed := make(map[string]V, len(ids)), make(KeyErrors)
	if v.err != nil {
		return found, v.err
	}
	need, err := v.need(ctx)
	if err != nil { // it is not known what the caller wrote, so nothing is new enough for it
		for range ids {
			v.account(ctx, entry{})
		}
		return found, nil
	}
	v.each(ctx, ids, need, failed, func(id string, value V, e entry) {
		v.account(ctx, e)
		switch {
		case e.verdict == hit:
			found[id] = value
		case e.err != nil:
			failed[id] = e.missErr()
		}
	})
	return found, failed.orNil()
}

// missingOf returns which of ids have to be loaded for anybody to find them. It counts no look-ups.
func (v *View[V]) missingOf(ctx context.Context, ids []string) (map[string]entry, KeyErrors) {
	missing, failed := make(map[string]entry), make(KeyErrors)
	v.each(ctx, ids, nil, failed, func(id string, _ V, e entry) {
		switch {
		case e.err != nil:
			failed[id] = e.missErr()
		case e.verdict == absent, e.verdict == unusable:
			missing[id] = e
		}
	})
	return missing, failed
}

// each looks ids up in one pipeline per node. IDs that are no keys go to failed.
func (v *View[V]) each(ctx context.Context, ids []string, need scaleaware.Tokens, failed KeyErrors, got func(id string, value V, e entry)) {
	gets := make(map[string]*redis.StringCmd, len(ids))
	rctx, cancel := context.WithTimeout(ctx, v.store.opts.RedisTimeout)
	defer cancel()
	pipe := v.store.rdb.Pipeline()
	for _, id := range ids {
		key, err := v.key(id)
		if err != nil {
			failed[id] = err
		} else if gets[id] == nil {
			gets[id] = pipe.Get(rctx, key)
		}
	}
	if len(gets) > 0 {
		_, _ = pipe.Exec(rctx) // each command has its own error
	}
	for id, get := range gets {
		raw, err := get.Bytes()
		value, e := v.open(ctx, raw, err, need)
		got(id, value, e)
	}
}
