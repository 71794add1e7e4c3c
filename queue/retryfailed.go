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
// message's beginning, 1 to count only
// Returns {looked at, enqueued, no longer there}.
var retryScript = redis.NewScript(`
local ids = redis.call("ZRANGE", KEYS[1], ARGV[4], ARGV[5], "BYSCORE", "LIMIT", ARGV[6], ARGV[2])
local dry = ARGV[8] == "1"
local moved, left = 0, 0
for _, id in ipairs(ids) do
	local key = ARGV[1] .. id
	local msg = redis.call("HGET", key, "msg")
	local mine = msg and string.sub(msg, 1, #ARGV[7]) == ARGV[7]
	if mine then
		moved = moved + 1
	end
	if not dry and (mine or not msg) then
		redis.call("ZREM", KEYS[1], id)
		left = left + 1
	end
	if not dry and mine then
		redis.call("HSET", key, "msg", msg .. "\48\0", "state", "pending", "pending_since", ARGV[3])
		redis.call("HDEL", key, "stalls")
		redis.call("LPUSH", KEYS[2], id)
	end
end
return {#ids, moved, left}`)

// RetryFailed gives failed jobs of a queue a fresh set of attempts, the oldest first, behind the waiting ones. It goes in
// steps that hold Redis up for milliseconds; those that have failed since the second in which the call began are not taken.
// Interrupted, it has done what it says, and another call goes on. It returns how many. A nil RetryFailed takes all.
func (j *Jobs) RetryFailed(ctx context.Context, queue string, which *RetryFailed) (int, error) {
	return j.retryFailed(ctx, queue, which, false)
}

// retryFailed retries, or, dry, counts what would be retried now.
func (j *Jobs) retryFailed(ctx context.Context, queue string, which *RetryFailed, dry bool) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	w, err := which.validate()
	if err != nil {
		return 0, err
	}
	from, to, left, err := j.failed(ctx, queue, w)
	if err != nil || dry && w.Kind == "" {
		return least(int(left), w.Most), err
	}
	done := "retried"
	if dry {
		done = "counted"
	}
	begins := ""
	if w.Kind != "" {
		begins = string(appendText(nil, 1, w.Kind))
	}
	began, moved, passed := time.Now(), 0, int64(0)
	for left > 0 && (w.Most == 0 || moved < w.Most) {
		n := min(left, step)
		if w.Most > 0 && !dry {
			n = min(n, int64(w.Most-moved))
		}
		if w.PerSecond > 0 && !dry {
			n = min(n, max(1, int64(w.PerSecond/10)))
			due := time.Duration(float64(moved) / w.PerSecond * float64(time.Second))
			if !sleep(ctx, due-time.Since(began)) {
				return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are %s so far: %w", queue, moved, done, ctx.Err())
			}
		}
		got, err := retryScript.Run(ctx, j.rdb, []string{asynqKey(queue, "archived"), asynqKey(queue, "pending")},
			taskPrefix(queue), n, time.Now().UnixNano(), from, to, passed, begins, dry).Int64Slice()
		if err != nil || len(got) != 3 {
			return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are %s so far: %w", queue, moved, done, err)
		}
		if got[0] == 0 {
			break
		}
		left -= got[0]
		moved += int(got[1])
		passed += got[0] - got[2]
	}
	return least(moved, w.Most), nil
}

// least is n, or most if that is set and less.
func least(n, most int) int {
	if most > 0 {
		return min(n, most)
	}
	return n
}

// failed returns the first and the last score of the failed jobs that w may take, and how many there are now. Those that fail
// later have higher ones, by the same clocks: those of the processes whose jobs they are.
func (j *Jobs) failed(ctx context.Context, queue string, w RetryFailed) (from, to string, n int64, err error) {
	key := asynqKey(queue, "archived")
	from, to = "-inf", "+inf"
	if !w.After.IsZero() {
		from = fmt.Sprint(w.After.Unix())
	}
	if !w.Before.IsZero() {
		to = fmt.Sprint(w.Before.Unix())
	}
	last, err := j.rdb.ZRevRangeByScoreWithScores(ctx, key, &redis.ZRangeBy{Min: from, Max: to, Count: 1}).Result()
	if err == nil && len(last) == 1 {
		to = formatScore(last[0])
		n, err = j.rdb.ZCount(ctx, key, from, to).Result()
	}
	if err != nil {
		return "", "", 0, fmt.Errorf("queue: count failed jobs of %q: %w", queue, err)
	}
	return from, to, n, nil
}
