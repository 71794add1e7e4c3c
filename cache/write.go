package cache

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/redis/go-redis/v9"
)

// Set stores a value, over whatever is there; loads of the key that run now will not replace it. Where the value is a
// database row, Delete after the commit is safer: two writers may Set in another order than they committed. A value
// stored by Set has no known age, so it is a miss for callers that wrote (see Untracked). It returns ErrTooLarge for
// a value over Options.MaxValueBytes.
func (v *View[V]) Set(ctx context.Context, id string, value V) error {
	if err := v.check(id); err != nil {
		return err
	}
	s, key := v.store, v.prefix+id
	payload, err := v.opts.codec.Encode(value)
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
	if len(h.tags) > 0 {
		if err := s.introduce(ctx, h.tags); err != nil {
			return fmt.Errorf("cache: set in view %s, the entry is unchanged; retry or delete it: %w", v.name, err)
		}
	}
	payload = v.compress(&h, payload)
	fresh, whole, physical := v.lifeOf(s, id, kindValue).args()
	raw := append(appendHeader(make([]byte, 0, headerSize+1+8*len(h.tags)+len(payload)), h), payload...)
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	changed := s.changing(ctx, key)
	err = putScript.Run(ctx, s.rdb, []string{key}, raw, fresh, whole, physical).Err()
	v.dropKey(id)
	changed()
	if err != nil {
		return fmt.Errorf("cache: set in view %s, the entry is unchanged or new; retry or delete it: %w", v.name, err)
	}
	return nil
}

// Delete removes entries. Loads that began before it, in any process, will not store what they read, and callers that
// come after it do not share them. When the caller's context carries what it wrote, nothing older than that is stored
// for as long as a load may last, whichever replica it was read from, unless an Invalidate passes over the key, and
// nothing of unknown age; databases that a load was not read from do not matter. Where its position could not be learned,
// nothing at all is stored for so long; loads return what they read. The
// error is a KeyErrors: what it names may be served until its TTL ends, so call again; a store that is running
// goes on trying by itself, too, until Redis is back.
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
	floor, _ := v.need(ctx) // what could not be learned is in it as unknown
	rctx, cancel := context.WithTimeout(ctx, v.store.opts.RedisTimeout)
	defer cancel()
	defer v.store.changing(rctx, v.keysOf(ids)...)()
	pipe, ttl := v.store.rdb.Pipeline(), v.store.leaseTTL().Milliseconds()
	type command struct {
		key   string
		lease []byte
		reply *redis.Cmd
	}
	commands := make(map[string]command, len(ids))
	for _, id := range ids {
		key, err := v.key(id)
		if err != nil {
			failed[id] = err
			continue
		}
		lease := appendHeader(nil, header{kind: kindLease, gen: generation(rand.Uint64()), asOf: floor})
		commands[id] = command{key, lease, pipe.EvalSha(rctx, deleteScript.Hash(), []string{key}, lease, ttl)}
	}
	if len(commands) > 0 {
		_, _ = pipe.Exec(rctx) // each command has its own error
	}
	removed := v.store.in.invalidated.WithLabelValues(v.name)
	for id, c := range commands {
		if redis.HasErrorPrefix(c.reply.Err(), "NOSCRIPT") {
			c.reply = deleteScript.Run(rctx, v.store.rdb, []string{c.key}, c.lease, ttl)
		}
		v.dropKey(id)
		n, err := c.reply.Int64()
		if err != nil {
			v.store.debts.owe(v.store, c.key, c.lease)
			failed[id] = fmt.Errorf("cache: delete in view %s, the entry may be served until its TTL ends; retry: %w", v.name, err)
			continue
		}
		removed.Add(float64(n))
	}
	return failed.orNil()
}

func (v *viewState) keysOf(ids []string) []string {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = v.prefix + id
	}
	return keys
}
