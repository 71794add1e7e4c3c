package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// RetryFailed says which failed jobs of a queue get fresh attempts. Zero of all means every one at once.
type RetryFailed struct {
	// Kind takes only jobs of this kind. Zero means any.
	Kind string
	// Before and After take only jobs that failed then. Zero means any time.
	Before, After time.Time
	// Most is how many are taken at most. Zero means all.
	Most int
	// PerSecond paces it: as many come back in a second at most, so that their return is no flood. Zero means no pace.
	PerSecond float64
}

func (r *RetryFailed) validate() (RetryFailed, error) {
	if r == nil {
		return RetryFailed{}, nil
	}
	if r.Most < 0 || r.PerSecond < 0 || r.Kind != "" && validateKind(r.Kind) != nil {
		return *r, fmt.Errorf("queue: RetryFailed has Kind %q, Most %d and PerSecond %v, want a kind, or \"\", and none below zero", clip(r.Kind), r.Most, r.PerSecond)
	}
	return *r, nil
}

// retryScript gives up to n failed jobs, the oldest first, a fresh set of attempts at the end of the queue. The two
// bytes are protobuf's "field 6 (retried) is 0": of a scalar field that occurs twice the last one counts, so the
// message needs no decoding. Its first field is the kind.
//
// KEYS: archived, pending; ARGV: task key prefix, n, now in ns, first and last score, how many of these to pass over,
// message's beginning
// Returns {looked at, enqueued}.
var retryScript = redis.NewScript(`
local ids = redis.call("ZRANGE", KEYS[1], ARGV[4], ARGV[5], "BYSCORE", "LIMIT", ARGV[6], ARGV[2])
local moved, gone = 0, 0
for _, id in ipairs(ids) do
	local key = ARGV[1] .. id
	local msg = redis.call("HGET", key, "msg")
	if not msg then
		redis.call("ZREM", KEYS[1], id)
		gone = gone + 1
	elseif string.sub(msg, 1, #ARGV[7]) == ARGV[7] then
		redis.call("ZREM", KEYS[1], id)
		redis.call("HSET", key, "msg", msg .. "\48\0", "state", "pending", "pending_since", ARGV[3])
		redis.call("HDEL", key, "stalls")
		redis.call("LPUSH", KEYS[2], id)
		moved = moved + 1
	end
end
return {#ids, moved, gone}`)

// RetryFailed gives failed jobs of a queue a fresh set of attempts, the oldest first, behind the waiting ones. It goes in
// steps that hold Redis up for milliseconds; those that have failed since the call began are not taken. Interrupted, it
// has done what it says, and another call goes on. It returns how many. A nil RetryFailed takes all.
func (j *Jobs) RetryFailed(ctx context.Context, queue string, which *RetryFailed) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	w, err := which.validate()
	if err != nil {
		return 0, err
	}
	from, to := "-inf", "+inf"
	if !w.After.IsZero() {
		from = fmt.Sprint(w.After.Unix())
	}
	if !w.Before.IsZero() {
		to = fmt.Sprint(w.Before.Unix())
	}
	left, err := j.rdb.ZCount(ctx, asynqKey(queue, "archived"), from, to).Result()
	if err != nil {
		return 0, fmt.Errorf("queue: count failed jobs of %q: %w", queue, err)
	}
	begins := ""
	if w.Kind != "" {
		begins = string(appendText(nil, 1, w.Kind))
	}
	began, moved, passed := time.Now(), 0, int64(0)
	for left > 0 && (w.Most == 0 || moved < w.Most) {
		n := min(left, step)
		if w.Most > 0 {
			n = min(n, int64(w.Most-moved))
		}
		if w.PerSecond > 0 {
			n = min(n, max(1, int64(w.PerSecond/10)))
			due := time.Duration(float64(moved) / w.PerSecond * float64(time.Second))
			if !sleep(ctx, due-time.Since(began)) {
				return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are retried so far: %w", queue, moved, ctx.Err())
			}
		}
		got, err := retryScript.Run(ctx, j.rdb, []string{asynqKey(queue, "archived"), asynqKey(queue, "pending")},
			taskPrefix(queue), n, time.Now().UnixNano(), from, to, passed, begins).Int64Slice()
		if err != nil || len(got) != 3 {
			return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are retried so far: %w", queue, moved, err)
		}
		if got[0] == 0 {
			break
		}
		left -= got[0]
		moved += int(got[1])
		passed += got[0] - got[1] - got[2]
	}
	return moved, nil
}
