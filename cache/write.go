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
	key, err := v.key(id)
	if err != nil {
		return err
	}
	payload, err := v.opts.codec.Encode(value)
	if err != nil {
		return err
	}
	if len(payload) > v.store.opts.MaxValueBytes {
		return fmt.Errorf("%w: it has %d bytes", ErrTooLarge, len(payload))
	}
	h := header{kind: kindValue, codec: v.opts.codec.ID(), gen: generation(rand.Uint64()), schema: v.schema}
	own, physical := v.lifetime(v.store, id, v.opts.ttl)
	raw := append(appendHeader(make([]byte, 0, headerSize+len(payload)), h), payload...)
	ctx, cancel := context.WithTimeout(ctx, v.store.opts.RedisTimeout)
	defer cancel()
	err = putScript.Run(ctx, v.store.rdb, []string{key}, raw, own.Milliseconds(), physical.Milliseconds()).Err()
	v.flights.forget(key)
	if err != nil {
		return fmt.Errorf("cache: set in view %s, the entry is unchanged or new; retry or delete it: %w", v.name, err)
	}
	return nil
}

// Delete removes entries. Loads that began before it, in any process, will not store what they read, and callers that
// come after it do not share them. When the caller's context carries what it wrote, then for as long as a load may
// last nothing older than that is stored either, whichever replica it was read from. The error is a KeyErrors: what
// it names may be served until its TTL ends, so call again.
func (v *View[V]) Delete(ctx context.Context, ids ...string) error {
	failed := make(KeyErrors)
	floor, _ := v.need(ctx) // an unknown position leaves a plain delete
	rctx, cancel := context.WithTimeout(ctx, v.store.opts.RedisTimeout)
	defer cancel()
	pipe := v.store.rdb.Pipeline()
	commands := make(map[string]redis.Cmder, len(ids))
	for _, id := range ids {
		key, err := v.key(id)
		if err != nil {
			failed[id] = err
			continue
		}
		if len(floor) == 0 {
			commands[id] = pipe.Unlink(rctx, key)
			continue
		}
		lease := appendHeader(nil, header{kind: kindLease, gen: generation(rand.Uint64()), asOf: floor})
		commands[id] = pipe.Set(rctx, key, lease, v.store.leaseTTL())
	}
	if len(commands) > 0 {
		_, _ = pipe.Exec(rctx) // each command has its own error
	}
	for id, cmd := range commands {
		v.flights.forget(v.prefix + id)
		if err := cmd.Err(); err != nil {
			failed[id] = fmt.Errorf("cache: delete in view %s, the entry may be served until its TTL ends; retry: %w", v.name, err)
			continue
		}
		v.store.in.invalidated.WithLabelValues(v.name).Inc()
	}
	return failed.orNil()
}
