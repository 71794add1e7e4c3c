package cache

import (
	"context"
	"crypto/sha1" // #nosec G505 -- Redis scripts offer SHA-1 only; it tells values apart and protects nothing
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
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
	left    time.Duration // that it is fresh, less than nothing when it is stale
	sure    time.Duration // that Redis has it at least
	tags    []*tagState
	bad     string // SHA-1 of an unusable value
	err     error  // of Redis, or of not knowing what the caller wrote
	down    bool   // Redis did not answer: do not ask it again for this call
}

// nothing is the entry of all keys that have none. It is not changed.
var nothing entry

// kept is what stays of an entry that is good for one call.
func (e *entry) kept() *entry {
	if e.verdict == absent && e.header.kind == 0 && !e.down && e.err == nil {
		return &nothing
	}
	stays := *e
	return &stays
}

// serves reports whether the entry may be given out without more ado.
func (e entry) serves() bool {
	return (e.verdict == hit || e.verdict == negative) && e.phase <= revalidate
}

// judge makes e what raw is to a caller that must see need. A nil raw is absent.
func (v *viewState) judge(s *Store, id string, raw []byte, need scaleaware.Tokens, e *entry) {
	*e = entry{}
	if raw == nil {
		return
	}
	var err error
	e.payload, err = e.header.parse(raw)
	h := &e.header
	switch {
	case err == nil && h.kind == kindLease:
		e.payload = nil
		return
	case err != nil, h.schema != v.schema, h.codec != v.opts.codec.ID(), max(len(e.payload), int(h.plain)) > s.opts.MaxValueBytes:
		*e = unusableEntry(raw)
		return
	case v.gone(h, id):
		e.verdict, e.payload = gone, nil
		return
	case !v.fresh(h, need):
		e.verdict, e.payload = tooOld, nil
		return
	}
	e.verdict, e.level = hit, resultL2
	if h.kind == kindNegative {
		e.verdict, e.level = negative, resultNegative
	}
	if v.opts.windowed() || v.opts.inProcess {
		now := s.nodeTime(s.coverage.slot(v.prefix+id), s.now())
		e.phase, e.left = v.age(*h, now, s.extensionOf(v.name, id))
		e.sure = h.own(now) + v.staleFor(h.kind)
		if !v.opts.windowed() || h.kind == kindNegative {
			e.phase = fresh // what Redis still has
		}
	}
}

// gone reports whether the rules that are known here say that an entry was invalidated.
func (v *viewState) gone(h *header, id string) bool {
	rules := v.store.rules.Load()
	return rules.bars(h.epoch, v.name, id) || !v.opts.untracked && rules.overtakes(v.store, h.asOf, v.name, id)
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

// kept returns what the process has of id, or nil. It reports whether a caller that must see need may have it without more ado;
// when not, the phase says whether it may when the origin fails.
func (v *View[V]) kept(id string, need scaleaware.Tokens) (r *resident[V], p phase, ok bool) {
	s := v.store
	now := s.now()
	if s.localOff.Load() {
		return nil, over, false
	}
	if r = v.near.get(s, id, now); r == nil {
		return nil, over, false
	}
	p, ok = v.usable(r, need, now)
	return r, p, ok
}

// fetch reads one entry from Redis and decodes it.
func (v *View[V]) fetch(ctx context.Context, key, id string, need scaleaware.Tokens) (value V, e entry) {
	s := v.store
	if s.redisOff() {
		e.down = true
		return v.lastKept(id, need, &e), e
	}
	var t ticket
	if v.near != nil {
		t = v.near.ticket(s, key, id, s.now())
	}
	s.heat.note(v.name, id, s.now())
	raw, err := s.get(ctx, key)
	value = v.open(ctx, id, raw, err, need, &e)
	if e.verdict >= negative {
		e = v.stands(ctx, e)
	}
	if e.down {
		return v.lastKept(id, need, &e), e
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
	states, ok, err := v.store.standing(ctx, v.aged(e.header))
	return e.standing(states, ok, err)
}

// aged is a header without the age that does not count in the view.
func (v *viewState) aged(h header) header {
	if v.opts.untracked {
		h.asOf = nil
	}
	return h
}

func (e entry) standing(states []*tagState, ok bool, err error) entry {
	switch {
	case err != nil:
		return entry{err: err, down: true}
	case !ok:
		return entry{verdict: gone, header: e.header}
	}
	e.tags = states
	return e
}

// open turns Redis's answer to a GET into a value, and makes e what it is to the caller. It counts nothing.
func (v *View[V]) open(ctx context.Context, id string, raw []byte, err error, need scaleaware.Tokens, e *entry) (value V) {
	switch {
	case err == nil:
		v.judge(v.store, id, raw, need, e)
	case errors.Is(err, redis.Nil):
		*e = entry{}
	case strings.HasPrefix(err.Error(), "WRONGTYPE"):
		*e = entry{verdict: unusable}
		return value
	default:
		*e = entry{err: err, down: true}
	}
	switch e.verdict {
	case hit:
		if err := v.unpack(e, &value); err != nil {
			v.store.in.failed(ctx, "decode", err, "view", v.name)
			*e = unusableEntry(raw)
			return *new(V)
		}
	case unusable:
		v.store.in.failed(ctx, "decode", errWire, "view", v.name)
	}
	return value
}

// account counts a look-up, and tells the caller's watermark how old the answer is.
func (v *View[V]) account(ctx context.Context, e entry) { v.count(v.note(ctx, &e), 1) }

// note is account without the counting, for which it returns how the look-up ended.
func (v *View[V]) note(ctx context.Context, e *entry) result {
	r := resultMiss
	if e.serves() {
		r = e.level
		if e.phase != fresh {
			r = resultStale
		}
	}
	if e.down && e.err != nil && ctx.Err() == nil {
		v.store.in.failed(ctx, "read", e.err, "view", v.name)
	}
	if r != resultMiss {
		v.told(ctx, &e.header)
	}
	return r
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
		if r, p, ok := v.kept(id, need); ok {
			return r.value, v.given(ctx, r, p)
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
	v.count(result, 1)
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
		v.count(resultMiss, int64(len(ids)))
		return found, nil
	}
	var ended tally
	defer v.countAll(&ended)
	v.each(ctx, ids, need, true, failed, func(id string, value V, e *entry) {
		ended[v.note(ctx, e)]++
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
func (v *View[V]) missingOf(ctx context.Context, ids []string) (map[string]*entry, KeyErrors) {
	missing, failed := make(map[string]*entry, len(ids)), make(KeyErrors)
	v.each(ctx, ids, nil, false, failed, func(id string, _ V, e *entry) {
		switch {
		case e.err != nil:
			failed[id] = e.missErr()
		case e.verdict < negative, e.phase != fresh:
			missing[id] = e.kept()
		}
	})
	return missing, failed
}

// each looks ids up, in the process and then in one pipeline per node, which counts for HotKeys if they were asked for. IDs that
// are no keys go to failed. The entry is good for the call that it is given to.
func (v *View[V]) each(ctx context.Context, ids []string, need scaleaware.Tokens, askedFor bool, failed KeyErrors, got func(id string, value V, e *entry)) {
	s := v.store
	type asked struct {
		id     string
		get    *redis.StringCmd
		pass   int
		ticket ticket
	}
	type opened struct {
		*asked
		value V
		e     entry
	}
	masters := make(passes, 0, 4)
	gets, once, known := make([]asked, 0, len(ids)), make(map[string]struct{}, len(ids)), 0
	sampled := rand.IntN(hotSample) // and then each hotSample-th
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	var pipe redis.Pipeliner
	if !s.redisOff() {
		pipe = s.rdb.Pipeline()
	}
	down := func(id string, err error) {
		e := entry{err: err, down: true}
		value := v.lastKept(id, need, &e)
		got(id, value, &e)
	}
	for _, id := range ids {
		if err := v.check(id); err != nil {
			failed[id] = err
			continue
		}
		if once[id] = struct{}{}; len(once) == known {
			continue
		}
		known++
		a := asked{id: id}
		if v.near != nil {
			r, p, ok := v.kept(id, need)
			switch {
			case ok:
				e := entry{verdict: hit, level: resultL1, header: r.rest.header, phase: p}
				if v.opts.early > 0 {
					e.left = r.fresh - s.now()
				}
				if r.kind == kindNegative {
					e.verdict, e.level = negative, resultNegative
				}
				got(id, r.value, &e)
				continue
			case p == onError && s.redisOff():
				got(id, r.value, &entry{verdict: hit, header: r.rest.header, phase: p, down: true})
				continue
			}
			a.ticket = v.near.ticket(s, v.prefix+id, id, s.now())
		}
		if pipe == nil {
			down(id, nil)
			continue
		}
		if askedFor && (known+sampled)%hotSample == 0 {
			s.heat.count(v.name, id, s.now())
		}
		key := v.prefix + id
		a.pass = masters.enter(s.coverage.guard(s.coverage.slot(key)))
		if err := masters[a.pass].refused; err != nil {
			down(id, err)
			continue
		}
		a.get = pipe.Get(rctx, key)
		gets = append(gets, a)
	}
	if len(gets) > 0 {
		_, _ = pipe.Exec(rctx) // each command has its own error
	}
	for i := range gets {
		masters.note(gets[i].pass, gets[i].get.Err())
	}
	s.leave(ctx, masters)
	var (
		value V
		e     entry
		tags  standingMany
		later []opened // until their tags are looked up
	)
	give := func(a *asked, value V, e *entry) {
		if e.down {
			down(a.id, e.err)
			return
		}
		if v.near != nil && e.verdict >= negative && !s.localOff.Load() {
			v.keep(a.id, a.ticket, value, *e)
		}
		got(a.id, value, e)
	}
	for i := range gets {
		a := &gets[i]
		raw, err := a.get.Bytes()
		value = v.open(ctx, a.id, raw, err, need, &e)
		if e.verdict >= negative && len(e.header.tags) > 0 {
			tags.add(e.header)
			later = append(later, opened{a, value, e})
			continue
		}
		give(a, value, &e)
	}
	if len(later) > 0 {
		tags.lookUp(ctx, s)
	}
	for i := range later {
		o := &later[i]
		o.e = o.e.standing(tags.standing(s, v.aged(o.e.header)))
		give(o.asked, o.value, &o.e)
	}
}
