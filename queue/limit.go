package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Rate is how many jobs may start in any window of a given length, over the whole fleet, retries included. Jobs that are fetched and
// given back unstarted do not count.
type Rate struct {
	// Max is the number of starts, 1 to 100000. Zero means no limit.
	Max int
	// Per is the window's length, 10ms to 24h. Zero means no limit, and is a mistake when Max is set.
	Per time.Duration
}

// Limited reports whether there is a limit at all.
func (r Rate) Limited() bool { return r.Max > 0 }

// guard widens the window so that the limit holds where handlers run too: a start is stamped by Redis and reaches
// its handler a scheduling delay later. Half a percent of the window, at most 5ms.
func (r Rate) guard() time.Duration { return min(5*time.Millisecond, r.Per/200) }

func (r Rate) window() time.Duration { return r.Per + r.guard() }

func (r Rate) validate(queue string) error {
	const most = 100_000 // starts remembered in Redis, about 1.7 MB
	switch {
	case r == Rate{}:
		return nil
	case r.Max < 1 || r.Max > most:
		return fmt.Errorf("queue: Rate.Max of queue %q is %d, want 1 to %d starts", queue, r.Max, most)
	case r.Per < 10*time.Millisecond || r.Per > 24*time.Hour:
		return fmt.Errorf("queue: Rate.Per of queue %q is %v, want 10ms to 24h", queue, r.Per)
	default:
		return nil
	}
}

// Limits are what bounds a queue's starts over the whole fleet. They live in Redis: a declaration seeds them, SetLimits
// changes them for all processes at once.
type Limits struct {
	// Rate bounds starts in any window. Zero means no bound.
	Rate Rate
	// Smooth spreads the starts over the window, too: no more than a twentieth of Rate.Max, and one, come at once. A job that a worker
	// fetches and gives back unstarted leaves its place in that row empty. Zero means that all of a window's starts may come at its
	// beginning.
	Smooth bool
	// Concurrency bounds how many jobs run at once in the fleet, of those whose time is not up: see Queue.Concurrency. Zero
	// means no bound but the workers' slots.
	Concurrency int
}

func (l Limits) validate(queue string) error {
	var errs []error
	if l.Smooth && !l.Rate.Limited() {
		errs = append(errs, fmt.Errorf("queue: Limits of queue %q are Smooth without a Rate, give it one", queue))
	}
	if l.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("queue: Limits.Concurrency of queue %q is %d, want 0 for no bound, or more", queue, l.Concurrency))
	}
	return errors.Join(append(errs, l.Rate.validate(queue))...)
}

// args are the limits as the scripts take them: most starts, window in µs, the time between smoothed starts and what they
// may be early, both in µs, and most at once. Being early by a twentieth of the window makes up for wake-ups that come late, also where
// fewer than twenty starts, which still come one by one, share it.
func (l Limits) args() []any {
	window := l.Rate.window().Microseconds()
	var every, early int64
	if l.Smooth {
		every = max(1, window/int64(l.Rate.Max))
		early = window / 20
	}
	return []any{l.Rate.Max, window, every, early, l.Concurrency}
}

// text is args in one.
func (l Limits) text() string { return strings.Trim(fmt.Sprint(l.args()), "[]") }

var limitFields = []string{"max", "window", "every", "early", "concurrency"}

func (l Limits) fields() []any {
	var fields []any
	for i, arg := range l.args() {
		fields = append(fields, limitFields[i], arg)
	}
	return append(fields, "per", l.Rate.Per.Microseconds())
}

// seedScript stores declared limits unless SetLimits has stored others. It deletes before it sets, as a full Redis refuses what may need
// room, unless the script has written before: else no worker could start there.
//
// KEYS: limits; ARGV: fields and values
var seedScript = redis.NewScript(`
redis.call("HDEL", KEYS[1], "")
if redis.call("HEXISTS", KEYS[1], "set") == 0 then
	redis.call("HSET", KEYS[1], unpack(ARGV))
end
return 1`)

// storeLimitsScript stores limits in place of those that are there, or none. It deletes first also for a Redis that is full: see seedScript.
//
// KEYS: limits; ARGV: fields and values
var storeLimitsScript = redis.NewScript(`
redis.call("DEL", KEYS[1])
if #ARGV > 0 then
	redis.call("HSET", KEYS[1], unpack(ARGV))
end
return 1`)

// seed makes a declaration what the fleet goes by: of several that differ, as during a deployment, the last.
func (j *Jobs) seed(ctx context.Context, q Queue) error {
	if err := seedScript.Run(ctx, j.rdb, []string{ownKey(q.Name, "limits")}, q.limits().fields()...).Err(); err != nil {
		return fmt.Errorf("queue: store the limits of %q: %w", q.Name, err)
	}
	return nil
}

// SetLimits changes what bounds a queue in the whole fleet, from the next start on, until ResetLimits. Errors:
// ErrUnknownQueue, what is wrong with the limits, or why Redis cannot be asked.
func (j *Jobs) SetLimits(ctx context.Context, queue string, l Limits) error {
	if err := j.known(ctx, queue); err != nil {
		return err
	}
	if err := l.validate(clip(queue)); err != nil {
		return err
	}
	if err := storeLimitsScript.Run(ctx, j.rdb, []string{ownKey(queue, "limits")}, append(l.fields(), "set", 1)...).Err(); err != nil {
		return fmt.Errorf("queue: set the limits of %q: %w", queue, err)
	}
	return nil
}

// ResetLimits makes the declaration hold again: this process's, and later that of whoever starts.
func (j *Jobs) ResetLimits(ctx context.Context, queue string) error {
	if err := j.known(ctx, queue); err != nil {
		return err
	}
	var fields []any
	if q, declared := j.declared(queue); declared {
		fields = q.limits().fields()
	}
	if err := storeLimitsScript.Run(ctx, j.rdb, []string{ownKey(queue, "limits")}, fields...).Err(); err != nil {
		return fmt.Errorf("queue: reset the limits of %q: %w", queue, err)
	}
	return nil
}

// LimitsOf returns what bounds a queue now, and whether SetLimits has set it.
func (j *Jobs) LimitsOf(ctx context.Context, queue string) (l Limits, set bool, err error) {
	if err := j.known(ctx, queue); err != nil {
		return l, false, err
	}
	stored, err := j.rdb.HGetAll(ctx, ownKey(queue, "limits")).Result()
	if err != nil {
		return l, false, fmt.Errorf("queue: read the limits of %q: %w", queue, err)
	}
	if len(stored) == 0 { // nobody has worked on it yet
		q, _ := j.declared(queue)
		return q.limits(), false, nil
	}
	number := func(field string) int64 { n, _ := strconv.ParseInt(stored[field], 10, 64); return n }
	l = Limits{Smooth: number("every") > 0, Concurrency: int(number("concurrency"))}
	if most := number("max"); most > 0 {
		l.Rate = Rate{Max: int(most), Per: time.Duration(number("per")) * time.Microsecond}
	}
	return l, stored["set"] != "", nil
}

// throttleScript keeps the later of two ends. It deletes first for a Redis that is full: see seedScript.
//
// KEYS: throttle; ARGV: ms
var throttleScript = redis.NewScript(`
if redis.call("PTTL", KEYS[1]) < tonumber(ARGV[1]) then
	redis.call("DEL", KEYS[1])
	redis.call("SET", KEYS[1], 1, "PX", ARGV[1])
end
return redis.call("PTTL", KEYS[1])`)

// Throttle starts no job of a queue for d, in the whole fleet, as an answer of 429 from outside asks for. It never
// shortens an earlier one; with d of zero it ends it. Jobs stay where they are.
func (j *Jobs) Throttle(ctx context.Context, queue string, d time.Duration) error {
	if err := j.known(ctx, queue); err != nil {
		return err
	}
	const most = 24 * time.Hour
	key := ownKey(queue, "throttle")
	var err error
	switch {
	case d < 0 || d > most:
		return fmt.Errorf("queue: Throttle of %q for %v, want 0 to %v", queue, d, most)
	case d == 0:
		err = j.rdb.Del(ctx, key).Err()
	default:
		err = throttleScript.Run(ctx, j.rdb, []string{key}, max(1, d.Milliseconds())).Err()
	}
	if err != nil {
		return fmt.Errorf("queue: throttle %q: %w", queue, err)
	}
	return nil
}
