package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	crewInterval = 4 * time.Second
	// crewTTL is how long a worker counts as living after it was last heard of.
	crewTTL = 15 * time.Second
)

// crewKey is a hash of the workers that live: their slots, and until when, by Redis's clock, they count.
func crewKey(queue string) string { return ownKey(queue, "crew") }

// crewScript notes that a worker lives. One that joins forgets those that have not been heard of, so that there are never many
// more than ever lived at once, also where no autoscaler looks. A full Redis refuses what may need room, unless the script has written
// before: else all that work would count as dead.
//
// KEYS: crew; ARGV: worker, slots, ttl in ms, 1 to join
var crewScript = redis.NewScript(`
redis.call("HDEL", KEYS[1], "")
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if ARGV[4] == "1" then
	local crew = redis.call("HGETALL", KEYS[1])
	for i = 1, #crew, 2 do
		local ends = string.match(crew[i + 1], "^%d+ (%d+)$")
		if not ends or tonumber(ends) <= now then
			redis.call("HDEL", KEYS[1], crew[i])
		end
	end
end
local ends = now + tonumber(ARGV[3])
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2] .. " " .. string.format("%.0f", ends))
redis.call("PEXPIRE", KEYS[1], 2 * ARGV[3])
return 1`)

// announce tells the autoscalers of this worker's queues that it lives, and asynq's tools that the queues exist, until ctx ends: a
// draining worker is no capacity any more. It does so side by side, as queues that a silent master has would take up the others' time.
func (w *Worker) announce(ctx context.Context) {
	id := rand.Text()
	for joins := true; ; joins = false {
		var telling sync.WaitGroup
		for i, q := range w.queues {
			telling.Go(func() {
				tell, cancel := context.WithTimeout(ctx, scaleTimeout)
				defer cancel()
				err := crewScript.Run(tell, w.jobs.rdb, []string{crewKey(q.Name)}, id, w.slots.sizeOf(i), crewTTL.Milliseconds(), joins).Err()
				err = errors.Join(err, w.jobs.rdb.SAdd(tell, allQueues, q.Name).Err())
				if err != nil && ctx.Err() == nil {
					w.jobs.background("announce", err, "queue", q.Name)
				}
			})
		}
		telling.Wait()
		if !sleep(ctx, crewInterval) {
			break
		}
	}
	var leaving sync.WaitGroup
	for _, q := range w.queues {
		leaving.Go(func() {
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = w.jobs.rdb.HDel(leave, crewKey(q.Name), id).Err() // it is forgotten by itself
		})
	}
	leaving.Wait()
}

// ScaleTo is a ScaleHook that resizes this worker: where one process does all the work, a rule's workers are its
// slots, and the rule's Slots is 1. More than WorkerOptions.MaxConcurrency, or than an isolated queue was declared with if that is
// more, is cut to that. Of an isolated queue it changes the slots of its own.
func (w *Worker) ScaleTo(_ context.Context, d Decision) error {
	for i, q := range w.queues {
		if q.Name != d.Queue || q.Isolated == 0 {
			continue
		}
		if d.Workers < 0 {
			return fmt.Errorf("queue: ScaleTo %d of queue %q, want 0 or more", d.Workers, d.Queue)
		}
		w.slots.resizeOwn(i, min(d.Workers, w.most(q)))
		return nil
	}
	return w.Resize(min(d.Workers, w.opts.MaxConcurrency))
}
