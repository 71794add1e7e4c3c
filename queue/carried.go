package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// carried is the end of a job that travels with the next fetch: one round trip for both. The script that ends jobs is first, so a
// fetch never waits for an end, and each has an answer of its own.
//
// A fetcher that waits for a slot and for nothing else takes along what frees it. It is awake at once, and whatever keeps it from
// fetching, it delivers the end.
type carried struct {
	ending
	reply chan endReply // of one
}

// carry makes the end of a job that is done the fetcher's, if it waits for that. With more than one slot ends are left to share calls,
// which costs less. The caller holds f.mu and gives the slot back.
func (f *fetcher) carry(id string, t *ticket) {
	if !f.waits || f.slots.sizeOf(f.index) > 1 || t.ending || t.retained || f.tickets[id] != t {
		return
	}
	t.ending = true
	t.carried = &carried{ending{verb: "done", id: id, owner: t.owner, unique: t.lock}, make(chan endReply, 1)}
	f.carries = append(f.carries, t.carried)
}

// load returns what is to be carried.
func (f *fetcher) load() []*carried {
	f.mu.Lock()
	defer f.mu.Unlock()
	load := f.carries
	f.carries = nil
	return load
}

// deliver sends ends that no fetch took along.
func (f *fetcher) deliver(ctx context.Context) {
	load := f.load()
	if len(load) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	handOver(load, f.ender.call(ctx, endings(load)))
}

// popWith runs the pop script behind the ends that the fetcher carries.
func (f *fetcher) popWith(ctx context.Context, load []*carried, keys []string, args []any) *redis.Cmd {
	script, endKeys, endArgs := f.ender.script(endings(load))
	pipe := f.jobs.rdb.Pipeline()
	sent := newOnceCmd(ctx, "evalsha", script.Hash(), endKeys, endArgs)
	_ = pipe.Process(ctx, sent)
	ended, got := sent.Cmd, popScript.EvalSha(ctx, pipe, keys, args...)
	_, _ = pipe.Exec(ctx) // each has its own error
	if redis.HasErrorPrefix(ended.Err(), "NOSCRIPT") {
		ended = script.Eval(ctx, once{f.jobs.rdb}, endKeys, endArgs...)
	}
	handOver(load, endReplies(ended, len(load)))
	if redis.HasErrorPrefix(got.Err(), "NOSCRIPT") {
		got = popScript.Eval(ctx, f.jobs.rdb, keys, args...)
	}
	return got
}

func endings(load []*carried) []ending {
	ends := make([]ending, len(load))
	for i, c := range load {
		ends[i] = c.ending
	}
	return ends
}

func handOver(load []*carried, replies []endReply) {
	for i, c := range load {
		c.reply <- replies[i]
	}
}

// first records the end as it was carried, and after that by again.
func (c *carried) first(ctx context.Context, again func() (string, error)) func() (string, error) {
	asked := false
	return func() (string, error) {
		if asked {
			return again()
		}
		asked = true
		select {
		case r := <-c.reply:
			return r.text, r.err
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
