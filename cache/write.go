package cache

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/scaleaware/scaleaware"
)

// Set stores a value, over whatever is there; loads of the key that run now will not replace it. Where the value is a
// database row, Delete after the commit is safer: two writers may Set in another order than they committed. A value
// stored by Set has no known age, so it is a miss for callers that wrote (see Untracked). It returns ErrTooLarge for
// a value over Options.MaxValueBytes. When Redis failed, a store that is running removes the entry, which may be old, when
// Redis is back, unless a later Set of the key has succeeded in this process.
func (v *View[V]) Set(ctx context.Context, id string, value V) error {
	if err := v.check(id); err != nil {
		return err
	}
	s, key := v.store, v.prefix+id
	payload, err := v.encode(value)
	if err != nil {
		return err
	}
	if len(payload) > s.opts.MaxValueBytes {
		return fmt.Errorf("%w: it has %d bytes", ErrTooLarge, len(payload))
	}
	h := header{kind: kindValue, codec: v.opts.codec.ID(), gen: generation(rand.Uint64()), schema: v.schema}
	if h.tags, err = v.tagsFor(id, value); err != nil {
		return err
	}
	h.epoch = s.epochNow(ctx, len(h.tags) > 0)
	if s.rdb == nil {
		v.dropKey(id)
		fl := &fill{id: id, epoch: h.epoch}
		if v.near != nil {
			fl.ticket = v.near.ticket(s, key, id, s.now())
			fl.ticket.put = true
		}
		v.keepLoaded(fl, h, value, payload)
		v.flights.forget(key)
		return nil
	}
	owed, known := s.debts.owed(key)
	if len(h.tags) > 0 {
		if _, err := s.introduce(ctx, h.tags); err != nil {
			v.oweSet(ctx, key)
			return fmt.Errorf("cache: set in view %s, the entry is unchanged; retry or delete it: %w", v.name, err)
		}
	}
	payload = v.compress(&h, payload)
	ttl := v.lifeOf(s, id, kindValue).into(&h)
	raw := append(appendHeader(make([]byte, 0, headerSize+1+8*len(h.tags)+len(payload)), h), payload...)
	changed := s.changing(ctx, key)
	err = s.call(ctx, key, func(ctx context.Context) error {
		return putScript.Run(ctx, s.rdb, []string{key}, raw[:storedFirst], raw[storedFirst:], ttl).Err()
	})
	v.dropKey(id)
	if err = changed(err); err != nil {
		v.oweSet(ctx, key)
		return fmt.Errorf("cache: set in view %s, the entry is unchanged or new; retry or delete it: %w", v.name, err)
	}
	if known {
		s.debts.settle(key, owed)
	}
	return nil
}

// oweSet makes an entry be removed that may be older than what could not be stored.
func (v *viewState) oweSet(ctx context.Context, key string) {
	var floor scaleaware.Tokens
	if !v.opts.untracked {
		floor, _ = scaleaware.WatermarkFrom(ctx).Known()
	}
	v.store.debts.owe(v.store, key, floor)
}

// Delete removes entries. Loads that began before it, in any process, will not store what they read, and callers that
// come after it do not share them. When the caller's context carries what it wrote, nothing that is known to be older is
// stored for a minute, or as long as loads go on to be refused, whichever replica it was read from, and nothing of unknown
// age for as long as a load may last; databases that a load was not read from do not matter, so a loader must not mix those
// that it tracks with others. What is loaded meanwhile carries that on while it lives; what Set stores does not, nor what is
// loaded of unknown age. As nobody can tell it from what was loaded otherwise, a value of known age asks, within a minute of
// its load, for as much when callers delete it who wrote nothing; loads of unknown age are stored again when as long has passed
// since then as a load may last. In an Untracked view nothing is asked for. A load that is known to be older is made again by
// a reader that is told so, and its callers get what that returns. Where the caller's position could not be learned, nothing
// at all is stored for as long as a load may last; loads return what they read. The error is a KeyErrors: what it names may be
// served until its TTL ends, so call again; a store that is running goes on trying by itself, too, until Redis is back, or a
// later Set or Delete of the key has succeeded here.
func (v *View[V]) Delete(ctx context.Context, ids ...string) error {
	if v.err != nil {
		return v.err
	}
	failed := make(KeyErrors)
	if v.store.rdb == nil {
		for _, id := range ids {
			if err := v.check(id); err != nil {
				failed[id] = err
				continue
			}
			v.dropKey(id)
		}
		return failed.orNil()
	}
	s := v.store
	floor, _ := v.need(ctx)                    // what could not be learned is in it as unknown
	end := time.Now().Add(s.opts.RedisTimeout) // not before: the database is asked for as long as it takes
	calls, of, owed := make([]keyCall, 0, len(ids)), make([]string, 0, len(ids)), make(map[string]header)
	floored := false
	for _, id := range ids {
		key, err := v.key(id)
		if err != nil {
			failed[id] = err
			continue
		}
		least := floor
		was, known := s.debts.owed(key)
		if known {
			owed[key], least = was, higher(was.asOf, floor)
		}
		floored = floored || len(least) > 0
		calls, of = append(calls, s.deletion(key, newLease(least))), append(of, id)
	}
	if len(calls) == 0 {
		return failed.orNil()
	}
	if floored {
		s.markLeases(ctx)
	}
	changed := s.changing(ctx, v.keysOf(of)...)
	s.callMany(ctx, keyScript{one: deleteScript}, calls, time.Until(end))
	for _, id := range of {
		v.dropKey(id)
	}
	untold := changed(failedAll(calls))
	removed := s.in.invalidated.WithLabelValues(v.name)
	for i, c := range calls {
		n, _ := c.reply.(int64)
		removed.Add(float64(n))
		if err := cmp.Or(c.err, untold); err != nil {
			s.debts.owe(s, c.key, floor)
			failed[of[i]] = fmt.Errorf("cache: delete in view %s, the entry may be served until its TTL ends; retry: %w", v.name, err)
		} else if was, known := owed[c.key]; known {
			s.debts.settle(c.key, was)
		}
	}
	return failed.orNil()
}

// newLease is what a delete leaves in an entry's place.
func newLease(floor scaleaware.Tokens) header {
	return header{kind: kindLease, gen: generation(rand.Uint64()), asOf: floor}
}

// deletion is the call that removes an entry.
func (s *Store) deletion(key string, lease header) keyCall {
	ageless, aged := s.floorTimes()
	return keyCall{key: key, args: []any{appendHeader(nil, lease), ageless, aged}}
}

func (v *viewState) keysOf(ids []string) []string {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = v.prefix + id
	}
	return keys
}
