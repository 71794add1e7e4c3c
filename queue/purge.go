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
// well. A job that Redis refuses, or whose keys may not have come yet, as while its slot is moved, stays where it was, with those behind
// it; why is answered when it is the first.
//
// The jobs leave the list last, all at once: a list that has become empty while its slot is moved takes nothing back. Of a script that
// dies, what is listed without its data is left, and no data that nothing lists.
//
// KEYS: list or set; ARGV: task key prefix, n, "list" or "set"
var purgeScript = redis.NewScript(`
local list = ARGV[3] == "list"
local ids = {}
if list then
	local newest = redis.call("LRANGE", KEYS[1], "-" .. ARGV[2], "-1")
	for i = #newest, 1, -1 do
		ids[#ids + 1] = newest[i]
	end
else
	ids = redis.call("ZRANGE", KEYS[1], "0", ARGV[2] - 1)
end
local function refused(reply)
	return type(reply) == "table" and not string.find(reply.err, "WRONGTYPE", 1, true) and reply
end
local function absent(key) -- or why that is not known: of two keys Redis says so
	return refused(redis.pcall("EXISTS", KEYS[1], key))
end
local function delete(id)
	local key = ARGV[1] .. id
	local lock = redis.pcall("HGET", key, "unique_key")
	local failure, holder = refused(lock) or not lock and absent(key)
	if not failure and type(lock) == "string" then
		holder = redis.pcall("GET", lock)
		failure = refused(holder) or not holder and absent(lock)
	end
	if failure then
		return failure
	end
	if holder == id then
		redis.call("DEL", lock)
	end
	redis.call("DEL", key)
end
local done, failure = 0
while done < #ids and not failure do
	failure = delete(ids[done + 1])
	done = failure and done or done + 1
end
if done == 0 then
	return failure or 0
end
if list then
	redis.call("RPOP", KEYS[1], done)
else
	redis.call("ZREMRANGEBYRANK", KEYS[1], "0", done - 1)
end
return done`)

// Purge deletes all jobs of a queue that are in one of the states now, for good, with their unique locks. To name the states is to
// consent: without any it deletes nothing. Running jobs stay. It goes in steps that hold Redis up for milliseconds, and may be
// called again when it was interrupted. It returns how many were deleted, with an error, too: beside these up to 500 more may be, when
// the answer to a step was lost, which is not made again. Errors: ErrUnknownQueue, an unknown state with nothing done, or why Redis
// cannot be asked.
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
			return purgeScript.Run(ctx, once{j.rdb}, []string{key}, taskPrefix(queue), size, kind)
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
