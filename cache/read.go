package cache

import (
	"context"
	"crypto/sha1" // #nosec G505 -- Redis scripts offer SHA-1 only; it tells values apart and protects nothing
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
	gone                    // invalidated, though it is still there
	tooOld                  // for this caller
	negative
	hit
)

// entry is what a look-up found.
type entry struct {
	verdict verdict
	level   result // where it was found
	header  header
	payload []byte
	phase   phase         // of a hit or negative
	left    time.Duration // that it is fresh
	tags    []*tagState
	bad     string // SHA-1 of an unusable value
	err     error  // of Redis, or of not knowing what the caller wrote
	down    bool   // Redis did not answer: do not ask it again for this call
}

// serves reports whether the entry may be given out without more ado.
func (e entry) serves() bool {
	return (e.verdict == hit || e.verdict == negative) && e.phase <= revalidate
}

// judge decides what raw is to a caller that must see need. A nil raw is absent.
func (v *viewState) judge(s *Store, id string, raw []byte, need scaleaware.Tokens) entry {
	if raw == nil {
		return entry{}
	}
	h, payload, err := parseHeader(raw)
	switch {
	case err == nil && h.kind == kindLease:
		return entry{header: h}
	case err != nil, h.schema != v.schema, h.codec != v.opts.codec.ID(), max(len(payload), int(h.plain)) > s.opts.MaxValueBytes:
		return unusableEntry(raw)
	case s.rules.Load().bars(h.epoch, v.name, id):
		return entry{verdict: gone, header: h}
	case !v.fresh(&h, need):
		return entry{verdict: tooOld, header: h}
	}
	e := entry{verdict: hit, level: resultL2, header: h, payload: payload}
	if h.kind == kindNegative {
		e.verdict, e.level = negative, resultNegative
	}
	if v.opts.windowed() || v.opts.inProcess {
		e.phase, e.left = v.age(h, s.nodeTime(s.coverage.slot(v.prefix+id), s.now()), s.extensionOf(v.name, id))
		if !v.opts.windowed() || h.kind == kindNegative {
			e.phase = fresh // what Redis still has
		}
	}
	return e
}

func unusableEntry(raw []byte) entry {
	sum := sha1.Sum(raw) // #nosec G401 -- see the import
	return entry{verdict: unusable, bad: hex.EncodeToString(sum[:])}
}

// need returns what the caller of ctx has written and must see.
func (v *viewState) need(ctx context.Context) (scaleaware.Tokens, error) {
	if v.opts.untracked {
		return nil, nil
	}
	return scaleaware.WatermarkFrom(ctx).Written(ctx)
}

// kept puts what the process has of id into r, if a caller that must see need may have it.
func (v *View[V]) kept(id string, need scaleaware.Tokens, r *resident[V]) (p phase, ok bool) {
	s := v.store
	now := s.now()
	if s.localOff.Load() || !v.near.get(s, id, now, r) {
		return over, false
	}
	return v.usable(r, need, now)
}

// fetch reads one entry from Redis and decodes it.
func (v *View[V]) fetch(ctx context.Context, key, id string, need scaleaware.Tokens) (value V, e entry) {
	s := v.store
	if s.redisOff() {
		return value, entry{down: true}
	}
	var t ticket
	if v.near != nil {
		t = v.near.ticket(s, key, id, s.now())
	}
	s.heat.note(v.name, id, s.now())
	raw, err := s.get(ctx, key)
	value, e = v.open(ctx, id, raw, err, need)
	if e.verdict >= negative {
		e = v.stands(ctx, e)
	}
	if v.near != nil && e.verdict >= negative && !s.localOff.Load() {
		v.keep(id, t, value, e)
	}
	return value, e
}

// stands makes an entry gone of which a tag was invalidated.
func (v *viewState) stands(ctx context.Context, e entry) entry {
	if len(e.header.tags) == 0 {
		return e
	}
	states, ok, err := v.store.standing(ctx, e.header)
	switch {
	case err != nil:
		return entry{err: err, down: true}
	case !ok:
		return entry{verdict: gone, header: e.header}
	}
	e.tags = states
	return e
}

// open turns Redis's answer to a GET into a value. It counts nothing.
func (v *View[V]) open(ctx context.Context, id string, raw []byte, err error, need scaleaware.Tokens) (value V, e entry) {
	switch {
	case errors.Is(err, redis.Nil):
		return value, entry{}
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return value, entry{verdict: unusable}
	case err != nil:
		return value, entry{err: err, down: true}
	}
	e = v.judge(v.store, id, raw, need)
	if e.verdict == hit {
		if err := v.decode(e, &value); err != nil {
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
	if e.serves() {
		r = e.level
		if e.phase != fresh {
			r = resultStale
		}
	}
	v.count(r)
	if e.down && e.err != nil && ctx.Err() == nil {
		v.store.in.failed(ctx, "read", e.err, "view", v.name)
	}
	if r != resultMiss {
		v.told(ctx, &e.header)
	}
}

// told tells the caller's watermark how old the answer is that it gets.
func (v *viewState) told(ctx context.Context, h *header) {
	if v.opts.untracked || ctx == context.Background() {
		return
	}
	v.saw(ctx, h.asOf)
	if len(h.seen) > 0 {
		w := scaleaware.WatermarkFrom(ctx)
		for _, t := range h.seen {
			w.Raise(t)
		}
	}
}

// saw tells whoever reads under ctx how old an answer is. A load that uses an answer of unknown age has a result of
// unknown age.
func (v *viewState) saw(ctx context.Context, asOf scaleaware.Tokens) {
	if v.opts.untracked || ctx == context.Background() {
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

// Get returns the cached value, also a stale one within StaleWhileRevalidate. The error is, or wraps, ErrMiss when there is
// none that this caller may use, also when Redis does not answer in time; ErrNotFound when the cache knows that the origin
// has no such value.
func (v *View[V]) Get(ctx context.Context, id string) (V, error) {
	var zero V
	if err := v.check(id); err != nil {
		return zero, err
	}
	need, err := v.need(ctx)
	if err != nil {
		v.account(ctx, entry{})
		return zero, fmt.Errorf("%w: %w", ErrMiss, err)
	}
	if v.near != nil {
		var r resident[V]
		if p, ok := v.kept(id, need, &r); ok {
			return r.value, v.given(ctx, &r, p)
		}
	}
	value, e := v.fetch(ctx, v.prefix+id, id, need)
	v.account(ctx, e)
	if !e.serves() {
		value = zero
	}
	return value, e.missErr()
}

// given counts a hit in the process, and returns the error that goes with it.
func (v *View[V]) given(ctx context.Context, r *resident[V], p phase) error {
	result, err := resultL1, error(nil)
	switch {
	case r.kind == kindNegative:
		result, err = resultNegative, ErrNotFound
	case p != fresh:
		result = resultStale
	}
	v.count(result)
	if ctx != context.Background() {
		v.told(ctx, &r.rest.header)
	}
	return err
}

func (e entry) missErr() error {
	switch {
	case e.serves() && e.verdict == hit:
		return nil
	case e.serves():
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
		case e.serves() && e.verdict == hit:
			found[id] = value
		case !e.serves() && e.err != nil:
			failed[id] = e.missErr()
		}
	})
	return found, failed.orNil()
}

// missingOf returns which of ids have to be loaded for anybody to find them fresh. It counts no look-ups.
func (v *View[V]) missingOf(ctx context.Context, ids []string) (map[string]entry, KeyErrors) {
	missing, failed := make(map[string]entry), make(KeyErrors)
	v.each(ctx, ids, nil, failed, func(id string, _ V, e entry) {
		switch {
		case e.err != nil:
			failed[id] = e.missErr()
		case e.verdict < negative, e.phase != fresh:
			missing[id] = e
		}
	})
	return missing, failed
}

// each looks ids up, in the process and then in one pipeline per node. IDs that are no keys go to failed.
func (v *View[V]) each(ctx context.Context, ids []string, need scaleaware.Tokens, failed KeyErrors, got func(id string, value V, e entry)) {
	s := v.store
	type asked struct {
		get    *redis.StringCmd
		ticket ticket
	}
	gets := make(map[string]asked, len(ids))
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	var pipe redis.Pipeliner
	if !s.redisOff() {
		pipe = s.rdb.Pipeline()
	}
	for _, id := range ids {
		if err := v.check(id); err != nil {
			failed[id] = err
			continue
		}
		if _, twice := gets[id]; twice {
			continue
		}
		a := asked{}
		if v.near != nil {
			var r resident[V]
			if p, ok := v.kept(id, need, &r); ok {
				e := entry{verdict: hit, level: resultL1, header: r.rest.header, phase: p}
				if r.kind == kindNegative {
					e.verdict, e.level = negative, resultNegative
				}
				gets[id] = a
				got(id, r.value, e)
				continue
			}
			a.ticket = v.near.ticket(s, v.prefix+id, id, s.now())
		}
		if pipe == nil {
			gets[id] = a
			got(id, *new(V), entry{down: true})
			continue
		}
		a.get = pipe.Get(rctx, v.prefix+id)
		gets[id] = a
	}
	if pipe != nil && pipe.Len() > 0 {
		_, _ = pipe.Exec(rctx) // each command has its own error
	}
	for id, a := range gets {
		if a.get == nil {
			continue
		}
		raw, err := a.get.Bytes()
		value, e := v.open(ctx, id, raw, err, need)
		if e.verdict >= negative {
			e = v.stands(ctx, e)
		}
		if v.near != nil && e.verdict >= negative && !s.localOff.Load() {
			v.keep(id, a.ticket, value, e)
		}
		got(id, value, e)
	}
}
