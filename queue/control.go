package queue

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
)

// step bounds how many jobs one script moves, and with it how long Redis serves nobody else.
const step = 500

// maxOwner is how long the name of an owner may be, in bytes.
const maxOwner = 128

// Hold says why, by whom and for how long something is held.
type Hold struct {
	// Reason is for people. Zero means none.
	Reason string
	// Owner is who holds: what another owner holds is not taken over, and Release of one owner leaves what another holds.
	// Zero means nobody in particular, whom anybody may release, and whom a hold of another's that ends no sooner suits.
	Owner string
	// For ends it by itself, at least a second. Zero means never.
	For time.Duration
}

func (h *Hold) validate(verb, queue string) (Hold, error) {
	if h == nil {
		return Hold{}, nil
	}
	if h.For < 0 || h.For > 0 && h.For < time.Second || len(h.Reason) > 1024 || len(h.Owner) > maxOwner {
		return *h, fmt.Errorf("queue: %s %q: want For of 0 or a second and more, Reason up to 1024 bytes, Owner up to %d", verb, queue, maxOwner)
	}
	return *h, nil
}

// HeldError is an ErrHeld that says who holds, and for how long.
type HeldError struct {
	// By is the other hold, as far as it is known: its Owner and LeftSeconds are.
	By Held
}

func (e *HeldError) Error() string {
	owner, left := "nobody in particular", "for ever"
	if e.By.Owner != "" {
		owner = e.By.Owner
	}
	if s := e.By.LeftSeconds; s != nil {
		left = fmt.Sprintf("for %.0f more seconds", math.Ceil(*s))
	}
	return fmt.Sprintf("%v: %s, %s", ErrHeld, owner, left)
}

// Unwrap makes errors.Is find ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

// suits reports whether a hold that stands ends no sooner than another one would that begins now.
func (h *Held) suits(other *Hold) bool {
	return h.LeftSeconds == nil || other.For > 0 && *h.LeftSeconds >= other.For.Seconds()
}

// ownerOf is Lua for who holds. What says why names the value of the key that stops: asynq's tools delete that, and set it to
// another one, without a word.
const ownerOf = `
local stop = redis.call("GET", KEYS[1])
local why = redis.call("HMGET", KEYS[2], "owner", "stop")
local owner = stop and (not why[2] or why[2] == stop) and why[1] or ""
`

// holdScript sets a key that stops something, and a second one that says why. Whoever holds already goes on to, with a new
// end if it is the same owner. It deletes before it sets, as a full Redis refuses what may need room, unless the script has written
// before.
//
// KEYS: stop, why; ARGV: now in s, ms or 0, owner, reason, a value that no other hold has
// Returns 1 when it changed something, 0 when it was held; when another owner holds it -1, who, and for how many ms, or -1.
var holdScript = redis.NewScript(ownerOf + `
local held = stop
if held and owner ~= ARGV[3] then
	return {-1, owner, redis.call("PTTL", KEYS[1])}
end
redis.call("DEL", KEYS[2])
if not held then
	stop = ARGV[5]
	redis.call("SET", KEYS[1], stop)
end
redis.call("HSET", KEYS[2], "owner", ARGV[3], "reason", ARGV[4], "since", ARGV[1], "stop", stop)
if ARGV[2] == "0" then
	redis.call("PERSIST", KEYS[1])
else
	redis.call("PEXPIRE", KEYS[1], ARGV[2])
	redis.call("PEXPIRE", KEYS[2], ARGV[2])
end
return {held and 0 or 1}`)

// releaseScript undoes holdScript. KEYS: stop, why; ARGV: owner, or "" for anybody
var releaseScript = redis.NewScript(ownerOf + `
if ARGV[1] ~= "" and owner ~= ARGV[1] then
	return -1
end
redis.call("DEL", KEYS[2])
return redis.call("DEL", KEYS[1])`)

func (j *Jobs) hold(ctx context.Context, verb, queue string, stop, why string, h *Hold) (bool, error) {
	if err := j.known(ctx, queue); err != nil {
		return false, err
	}
	hold, err := h.validate(verb, clip(queue))
	if err != nil {
		return false, err
	}
	reply, err := holdScript.Run(ctx, j.rdb, []string{stop, why}, time.Now().Unix(), hold.For.Milliseconds(), hold.Owner, hold.Reason, rand.Text()).Slice()
	if err != nil {
		return false, fmt.Errorf("queue: %s %q: %w", verb, queue, err)
	}
	if len(reply) == 3 {
		by := Held{}
		by.Owner, _ = reply[1].(string)
		if ms, _ := reply[2].(int64); ms >= 0 {
			left := float64(ms) / 1000
			by.LeftSeconds = &left
		}
		if hold.Owner != "" || !by.suits(&hold) {
			return false, fmt.Errorf("queue: %s %q: %w", verb, queue, &HeldError{by})
		}
	}
	return reply[0] == int64(1), nil
}

func (j *Jobs) release(ctx context.Context, verb, queue, stop, why, owner string) (bool, error) {
	if err := j.known(ctx, queue); err != nil {
		return false, err
	}
	n, err := releaseScript.Run(ctx, j.rdb, []string{stop, why}, owner).Int()
	if err != nil {
		return false, fmt.Errorf("queue: %s %q: %w", verb, queue, err)
	}
	return n == 1, nil
}

// Pause stops the start of jobs of a queue in the whole fleet; running ones go on and new ones are accepted. It
// reports whether it changed anything. asynq's tools see and undo it, as it is their own pause. A nil Hold is nobody's and
// for ever. Errors: ErrUnknownQueue, a HeldError, which is an ErrHeld, when another owner has paused it (nobody's Hold: only if that
// one ends sooner), what is wrong with the Hold, or why Redis cannot be asked.
func (j *Jobs) Pause(ctx context.Context, queue string, h *Hold) (bool, error) {
	return j.hold(ctx, "pause", queue, asynqKey(queue, "paused"), ownKey(queue, "paused"), h)
}

// Unpause undoes Pause, of one owner or, with "", of anybody. It reports whether it changed anything.
func (j *Jobs) Unpause(ctx context.Context, queue, owner string) (bool, error) {
	return j.release(ctx, "unpause", queue, asynqKey(queue, "paused"), ownKey(queue, "paused"), owner)
}

// Close makes a queue take no new jobs, in the whole fleet: Enqueue returns ErrClosed, the outbox keeps its rows. Stored
// jobs run. It reports whether it changed anything; errors are as Pause's.
func (j *Jobs) Close(ctx context.Context, queue string, h *Hold) (bool, error) {
	return j.hold(ctx, "close", queue, ownKey(queue, "closed"), ownKey(queue, "closing"), h)
}

// Open undoes Close, of one owner or, with "", of anybody. It reports whether it changed anything.
func (j *Jobs) Open(ctx context.Context, queue, owner string) (bool, error) {
	return j.release(ctx, "open", queue, ownKey(queue, "closed"), ownKey(queue, "closing"), owner)
}

// Resume undoes Pause, Close and Park, whoever did them. It reports whether the queue was paused or closed and how many
// parked jobs are back, at the head of the queue in their old order.
func (j *Jobs) Resume(ctx context.Context, queue string) (wasHeld bool, unparked int, err error) {
	paused, err := j.Unpause(ctx, queue, "")
	if err != nil {
		return false, 0, err
	}
	closed, err := j.Open(ctx, queue, "")
	if err != nil {
		return paused, 0, err
	}
	unparked, err = j.Unpark(ctx, queue)
	return paused || closed, unparked, err
}

// Unpark brings back what Park has set aside, at the head of the queue in its old order. It returns how many, as Purge does.
func (j *Jobs) Unpark(ctx context.Context, queue string) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	return j.batched(ctx, queue, "unpark", ownKey(queue, "parked"), func(size int) *redis.Cmd {
		return moveScript.Run(ctx, once{j.rdb}, []string{ownKey(queue, "parked"), asynqKey(queue, "pending")}, size, "LEFT", "RIGHT")
	})
}

// Park sets all waiting jobs of a queue aside until Resume. Running, delayed and retrying jobs stay, new ones are
// accepted. It returns how many were set aside, as Purge does.
func (j *Jobs) Park(ctx context.Context, queue string) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	return j.batched(ctx, queue, "park", asynqKey(queue, "pending"), func(size int) *redis.Cmd {
		return moveScript.Run(ctx, once{j.rdb}, []string{asynqKey(queue, "pending"), ownKey(queue, "parked")}, size, "RIGHT", "LEFT")
	})
}

// sizeScript is the length of a list or a sorted set.
var sizeScript = redis.NewScript(`
if redis.call("TYPE", KEYS[1]).ok == "zset" then
	return redis.call("ZCARD", KEYS[1])
end
return redis.call("LLEN", KEYS[1])`)

// batched repeats a script on the list or set at key for as many jobs as it has now, a step at a time.
func (j *Jobs) batched(ctx context.Context, queue, verb, key string, run func(size int) *redis.Cmd) (int, error) {
	left, err := sizeScript.Run(ctx, j.rdb, []string{key}).Int64()
	if err != nil {
		return 0, fmt.Errorf("queue: %s jobs of %q: %w", verb, queue, err)
	}
	moved := 0
	for left > 0 {
		size := min(int(left), step)
		n, err := run(size).Int()
		moved += n
		if err != nil {
			return moved, fmt.Errorf("queue: %s jobs of %q, %d are done so far: %w", verb, queue, moved, err)
		}
		if n == 0 {
			break
		}
		left -= int64(n)
	}
	return moved, nil
}
