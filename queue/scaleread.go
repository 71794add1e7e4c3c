package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// scaleScript reads at once all that a decision needs, and forgets workers that have not been heard of. asynq's
// counter of ended attempts is what GetQueueInfo calls ProcessedTotal.
//
// KEYS: pending, active, scheduled, retry, paused, processed, crew, scale, run counters; ARGV: task key prefix
// Returns {now in ms, due, active, processed, paused, age in ms or -1, workers, slots, generation, applied, reason,
// state, the run counters' fields and values}.
var scaleScript = redis.NewScript(`
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local due = redis.call("LLEN", KEYS[1])
	+ redis.call("ZCOUNT", KEYS[3], "-inf", time[1]) + redis.call("ZCOUNT", KEYS[4], "-inf", time[1])
local age = 0
local id = redis.call("LINDEX", KEYS[1], -1)
if id then
	local since = redis.pcall("HGET", ARGV[1] .. id, "pending_since")
	age = type(since) == "string" and math.max(0, now - math.floor(tonumber(since) / 1000000)) or -1
end
local workers, slots = 0, 0
local crew = redis.call("HGETALL", KEYS[7])
for i = 1, #crew, 2 do
	local n, ends = string.match(crew[i + 1], "^(%d+) (%d+)$")
	if n and tonumber(ends) > now then
		workers, slots = workers + 1, slots + tonumber(n)
	else
		redis.call("HDEL", KEYS[7], crew[i])
	end
end
local m = redis.call("HMGET", KEYS[8], "generation", "applied", "reason", "state")
local runs = {}
for i = 9, #KEYS do
	local fields = redis.call("HGETALL", KEYS[i])
	for f = 1, #fields do
		runs[#runs + 1] = fields[f]
	end
end
return {now, due, redis.call("LLEN", KEYS[2]), tonumber(redis.call("GET", KEYS[6]) or "0"), redis.call("EXISTS", KEYS[5]), age,
	workers, slots, m[1] or "0", m[2] or "0", m[3] or "", m[4] or "", runs}`)

// readScale reads what the next decision is made from.
func (j *Jobs) readScale(ctx context.Context, s *scaler) (ScaleInputs, scaleMemory, error) {
	in, m, err := j.readQueue(ctx, s.rule.Queue)
	if err != nil {
		return in, m, err
	}
	q, _ := j.declared(s.rule.Queue)
	limits, _, err := j.LimitsOf(ctx, q.Name)
	if err != nil {
		return in, m, err
	}
	if limits.Rate.Limited() {
		in.MaxStartsPerSecond = float64(limits.Rate.Max) / limits.Rate.Per.Seconds()
	}
	in.Paused = in.Paused || j.allow(ctx, q) != nil
	if s.opts.Bottleneck != nil {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if in.Bottleneck, err = s.opts.Bottleneck(ask); err != nil {
			in.Bottleneck = "unknown"
			if ctx.Err() != nil {
				return in, m, ctx.Err() // the process ends, or does not lead any more
			}
			j.background("autoscale", fmt.Errorf("queue: ScaleOptions.Bottleneck of %q, nothing is scaled up: %w", q.Name, err), "queue", q.Name)
		}
		in.Bottleneck = clip(in.Bottleneck)
	}
	return in, m, nil
}

// readQueue asks one script.
func (j *Jobs) readQueue(ctx context.Context, queue string) (ScaleInputs, scaleMemory, error) {
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	keys := make([]string, 0, 11)
	for _, name := range []string{"pending", "active", "scheduled", "retry", "paused", "processed"} {
		keys = append(keys, asynqKey(queue, name))
	}
	keys = append(keys, crewKey(queue), scaleKey(queue))
	reply, err := scaleScript.Run(ctx, j.rdb, append(keys, runKeys(queue, time.Now())...), taskPrefix(queue)).Slice()
	if err != nil {
		return ScaleInputs{}, scaleMemory{}, fmt.Errorf("queue: read what scaling %q needs: %w", queue, err)
	}
	in, m, err := parseScale(reply)
	if err != nil {
		return in, m, fmt.Errorf("queue: read what scaling %q needs: %w", queue, err)
	}
	return in, m, nil
}

func parseScale(reply []any) (in ScaleInputs, m scaleMemory, err error) {
	if len(reply) != 13 {
		return in, m, fmt.Errorf("the script answered with %d values", len(reply))
	}
	number := func(i int) int64 {
		switch v := reply[i].(type) {
		case int64:
			return v
		case string:
			n, convErr := strconv.ParseInt(v, 10, 64)
			if convErr != nil {
				err = fmt.Errorf("value %d is %q, want a number", i, clip(v))
			}
			return n
		default:
			err = fmt.Errorf("value %d is a %T, want a number", i, v)
			return 0
		}
	}
	in = ScaleInputs{
		At: time.UnixMilli(number(0)).UTC(), Known: true, Due: int(number(1)), Active: int(number(2)),
		Paused: number(4) == 1, Workers: int(number(6)), Slots: int(number(7)),
	}
	in.Arrived = number(3) + int64(in.Due) + int64(in.Active)
	if age := number(5); age >= 0 {
		seconds := float64(age) / 1000
		in.OldestSeconds = &seconds
	}
	m.generation, m.applied = number(8), number(9)
	reason, _ := reply[10].(string)
	m.reason = Reason(reason)
	if state, _ := reply[11].(string); state != "" && json.Unmarshal([]byte(state), &m.state) != nil {
		m.state = ScaleState{} // another version's: begin anew, from the workers that live
	}
	runs, _ := reply[12].([]any)
	in.Runs, in.RunSeconds = meanRun(runs)
	return in, m, err
}

// meanRun reads the run counters' histogram, whose buckets are 5 % wide.
func meanRun(fields []any) (n int64, mean float64) {
	sum := 0.0
	for i := 0; i+1 < len(fields); i += 2 {
		name, _ := fields[i].(string)
		value, _ := fields[i+1].(string)
		bucket, isBucket := strings.CutPrefix(name, "b")
		b, errBucket := strconv.Atoi(bucket)
		count, errCount := strconv.ParseInt(value, 10, 64)
		if isBucket && errBucket == nil && errCount == nil {
			n += count
			sum += float64(count) * bucketSeconds(b)
		}
	}
	if n == 0 {
		return 0, 0
	}
	return n, sum / float64(n)
}
