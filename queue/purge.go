package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// State is where a job stands that does not run.
type State string

// The states that Purge takes.
const (
	Waiting   State = "waiting"
	Delayed   State = "delayed"
	Retrying  State = "retrying"
	Failed    State = "failed"
	Completed State = "completed"
	Parked    State = "parked"
)

// States are all of them.
var states = []State{Waiting, Delayed, Retrying, Failed, Completed, Parked}

func (s State) key(queue string) (key string, list bool) {
	switch s {
	case Waiting:
		return asynqKey(queue, "pending"), true
	case Delayed:
		return asynqKey(queue, "scheduled"), false
	case Retrying:
		return asynqKey(queue, "retry"), false
	case Failed:
		return asynqKey(queue, "archived"), false
	case Completed:
		return asynqKey(queue, "completed"), false
	default:
		return ownKey(queue, "parked"), true
	}
}

// purgeScript deletes up to n jobs of a list or a sorted set with their unique locks, the oldest first. A key that is no job's goes as
// well. A job that Redis refuses, as while its slot is moved, stays where it was, with those behind it; why is answered when it is the
// first.
//
// KEYS: list or set; ARGV: task key prefix, n, "list" or "set"
var purgeScript = redis.NewScript(`
local list = ARGV[3] == "list"
local ids, scores = {}, {}
if list then
	ids = redis.call("RPOP", KEYS[1], ARGV[2]) or {}
else
	local set = redis.call("ZRANGE", KEYS[1], 0, ARGV[2] - 1, "WITHSCORES")
	for i = 1, #set, 2 do
		ids[#ids + 1], scores[#scores + 1] = set[i], set[i + 1]
	end
	redis.call("ZREMRANGEBYRANK", KEYS[1], 0, ARGV[2] - 1)
end
local function refused(reply)
	return type(reply) == "table" and not string.find(reply.err, "WRONGTYPE", 1, true)
end
for i, id in ipairs(ids) do
	local lock = redis.pcall("HGET", ARGV[1] .. id, "unique_key")
	local holder = type(lock) == "string" and redis.pcall("GET", lock)
	if refused(lock) or refused(holder) then
		for k = #ids, i, -1 do
			if list then
				redis.call("RPUSH", KEYS[1], ids[k])
			else
				redis.call("ZADD", KEYS[1], scores[k], ids[k])
			end
		end
		return i > 1 and i - 1 or refused(lock) and lock or holder
	end
	if holder == id then
		redis.call("DEL", lock)
	end
	redis.call("DEL", ARGV[1] .. id)
end
return #ids`)

// Purge deletes all jobs of a queue that are in one of the states now, for good, with their unique locks. To name the states is to
// consent: without any it deletes nothing. Running jobs stay. It goes in steps that hold Redis up for milliseconds, and may be
// called again when it was interrupted. It returns how many were deleted. Errors: ErrUnknownQueue, an unknown state with nothing
// done, or why Redis cannot be asked.
func (j *Jobs) Purge(ctx context.Context, queue string, of ...State) (int, error) {
	if err := j.known(ctx, queue); err != nil {
		return 0, err
	}
	if err := checkStates(of); err != nil {
		return 0, err
	}
	deleted := 0
	for _, state := range of {
		key, list := state.key(queue)
		kind := "set"
		if list {
			kind = "list"
		}
		n, err := j.batched(ctx, queue, "purge", key, func(size int) *redis.Cmd {
			return purgeScript.Run(ctx, j.rdb, []string{key}, taskPrefix(queue), size, kind)
		})
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

func checkStates(of []State) error {
	for _, state := range of {
		if !slices.Contains(states, state) {
			return fmt.Errorf("queue: Purge of state %q, want %s", clip(string(state)), stateNames())
		}
	}
	if len(of) == 0 {
		return fmt.Errorf("queue: Purge of no state, want %s", stateNames())
	}
	return nil
}

func stateNames() string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}
