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
// come after it do not share them. When the caller's context carries what it wrote, nothing older than that is stored
// for as long as a load may last, whichever replica it was read from, unless an Invalidate passes over the key. Where
// its position could not be learned, nothing at all is stored for so long; loads return what they read. The
// error is a KeyErrors: what it names may be served until its TTL ends, so call again.
func (v *View[V]) Delete(ctx context.Context, ids ...string) error {
	if v.err != nil {
		return v.err
	}
	failed := make(KeyErrors)
	floor, _ := v.need(ctx) // what could not be learned is in it as unknown
	rctx, cancel := context.WithTimeout(ctx, v.store.opts.RedisTimeout)
	defer cancel()
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
		v.flights.forget(c.key)
		n, err := c.reply.Int64()
		if err != nil {
			failed[id] = fmt.Errorf("cache: delete in view %s, the entry may be served until its TTL ends; retry: %w", v.name, err)
			continue
		}
		removed.Add(float64(n))
	}
	return failed.orNil()
}
