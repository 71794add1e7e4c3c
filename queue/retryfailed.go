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
	// PerSecond paces it: as many come back in a second at most, so that their return is no flood. Jobs of other kinds do not
	// count. Zero means no pace.
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

// retryScript gives failed jobs, the oldest first, a fresh set of attempts at the end of the queue. The two
// bytes are protobuf's "field 6 (retried) is 0": of a scalar field that occurs twice the last one counts, so the
// message needs no decoding. Its first field is the kind.
//
// It goes on behind where the last call has ended, whatever has become of that job: of those with its score, which are in the
// order of their bytes, half are left out at each look. That costs as little for the millionth job as for the first, and writes
// nothing.
//
// A failed job whose key is gone, or is something else, is dropped. Where Redis refuses its key, or the waiting ones, or its key may not
// have come yet, as while the slot is moved, it stays where it was; why is answered when it is the first. It leaves the failed ones
// last: when none are left, the key of these takes nothing back while the slot is moved. To drop nobody first makes a full Redis take
// the rest.
//
// KEYS: archived, pending; ARGV: task key prefix, how many are looked at and how many taken at most, now in ns, first and last score,
// the last call's score and id, or "", message's beginning, 1 to count only
// Returns {looked at, taken, score and id of the last one that was looked at}.
var retryScript = redis.NewScript(`
local function before(a, b)
	for i = 1, math.min(#a, #b) do
		local x, y = string.byte(a, i), string.byte(b, i)
		if x ~= y then
			return x < y
		end
	end
	return #a < #b
end
local from = 0
if ARGV[8] ~= "" then
	from = redis.call("ZCOUNT", KEYS[1], "-inf", "(" .. ARGV[7])
	local behind = redis.call("ZCOUNT", KEYS[1], "-inf", ARGV[7])
	while from < behind do
		local middle = math.floor((from + behind) / 2)
		if before(ARGV[8], redis.call("ZRANGE", KEYS[1], middle, middle)[1]) then
			behind = middle
		else
			from = middle + 1
		end
	end
elseif ARGV[5] ~= "-inf" then
	from = redis.call("ZCOUNT", KEYS[1], "-inf", "(" .. ARGV[5])
end
local ids = redis.call("ZRANGE", KEYS[1], from, from + ARGV[2] - 1, "WITHSCORES")
local dry = ARGV[10] == "1"
local looked, taken, bytes, score, last = 0, 0, 0, ARGV[7], ARGV[8]
for i = 1, #ids, 2 do
	local id = ids[i]
	if taken >= tonumber(ARGV[3]) or bytes > 4194304 or tonumber(ids[i + 1]) > tonumber(ARGV[6]) then
		break
	end
	local key = ARGV[1] .. id
	local msg = redis.pcall("HGET", key, "msg")
	local failure = type(msg) == "table" and msg
	if failure and string.find(failure.err, "WRONGTYPE", 1, true) then
		failure, msg = false, false
	elseif not msg then
		local there = redis.pcall("EXISTS", KEYS[1], key) -- of two keys Redis says when one may not have come yet
		failure = type(there) == "table" and there
	end
	local mine = not failure and msg and string.sub(msg, 1, #ARGV[9]) == ARGV[9]
	if not dry and mine then
		redis.call("ZREM", KEYS[1], "")
		local moved = redis.pcall("LPUSH", KEYS[2], id)
		failure = type(moved) == "table" and moved
	end
	if not dry and not failure and (mine or not msg) then
		redis.call("ZREM", KEYS[1], id)
	end
	if failure then
		if looked == 0 then
			return failure
		end
		break
	end
	looked, score, last = looked + 1, ids[i + 1], id
	bytes = bytes + (msg and #msg or 0)
	if mine then
		taken = taken + 1
	end
	if not dry and mine then
		redis.call("HSET", key, "msg", msg .. "\48\0", "state", "pending", "pending_since", ARGV[4])
		redis.call("HDEL", key, "stalls")
	end
end
return {looked, taken, score, last}`)

// RetryFailed gives failed jobs of a queue a fresh set of attempts, the oldest first, behind the waiting ones. It goes in
// steps that hold Redis up for milliseconds; those that have failed since the second in which the call began are not taken.
// Interrupted, it has done what it says, and another call goes on. It returns how many, with an error, too: beside these up to 500 more
// may be back, and no more than Most, when the answer to a step was lost, which is not made again. A nil RetryFailed takes all.
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
	began, moved, score, last := time.Now(), 0, "", ""
	for left > 0 && (w.Most == 0 || moved < w.Most) {
		n := step
		if w.Most > 0 {
			n = min(n, w.Most-moved)
		}
		if w.PerSecond > 0 && !dry {
			n = min(n, max(1, int(w.PerSecond/10)))
			due := time.Duration(float64(moved) / w.PerSecond * float64(time.Second))
			if !sleep(ctx, due-time.Since(began)) {
				return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are %s so far: %w", queue, moved, done, ctx.Err())
			}
		}
		got, err := retryScript.Run(ctx, once{j.rdb}, []string{asynqKey(queue, "archived"), asynqKey(queue, "pending")},
			taskPrefix(queue), min(left, step), n, time.Now().UnixNano(), from, to, score, last, begins, dry).Slice()
		if err != nil || len(got) != 4 {
			return moved, fmt.Errorf("queue: retry failed jobs of %q, %d are %s so far: %w", queue, moved, done, err)
		}
		looked, _ := got[0].(int64)
		taken, _ := got[1].(int64)
		score, _ = got[2].(string)
		last, _ = got[3].(string)
		if looked == 0 {
			break
		}
		left -= looked
		moved += int(taken)
	}
	return moved, nil
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
