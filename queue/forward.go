package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// forwardScript makes jobs wait for a worker whose time has come, by Redis's clock and to the millisecond: asynq's goes by
// whole seconds. It returns how many, 100 at most.
//
// An ID whose key is no job's is dropped. Where Redis refuses a key, or the list or the group that the job is to go to, the job stays
// where it was, with those behind it; why is answered when it is the first.
//
// KEYS: scheduled or retry, pending; ARGV: task key prefix, group key prefix
var forwardScript = redis.NewScript(`
local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", string.format("%.6f", now), "WITHSCORES", "LIMIT", "0", "100")
local function forward(id, score)
	local key = ARGV[1] .. id
	local group = redis.pcall("HGET", key, "group")
	local wrong = type(group) == "table"
	if wrong and not string.find(group.err, "WRONGTYPE", 1, true) then
		return group
	end
	redis.call("ZREM", KEYS[1], id)
	if wrong then
		return false
	end
	local grouped, moved = group and group ~= ""
	if grouped then
		moved = redis.pcall("ZADD", ARGV[2] .. group, time[1], id)
	else
		moved = redis.pcall("LPUSH", KEYS[2], id)
	end
	if type(moved) == "table" then
		redis.call("ZADD", KEYS[1], score, id)
		return moved
	end
	if grouped then
		redis.call("HSET", key, "state", "aggregating")
	else
		redis.call("HSET", key, "state", "pending", "pending_since", string.format("%.0f", now * 1000000) .. "000")
	end
	return false
end
for i = 1, #ids, 2 do
	local failure = forward(ids[i], ids[i + 1])
	if failure then
		return i > 1 and (i - 1) / 2 or failure
	end
end
return #ids / 2`)

// forward answers asynq's own look for jobs whose time has come.
func (f *fetcher) forward(ctx context.Context, keys []string, args []any, call func() *redis.Cmd) *redis.Cmd {
	if keys[0] != asynqKey(f.queue.Name, "scheduled") && keys[0] != asynqKey(f.queue.Name, "retry") {
		return call()
	}
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	return forwardScript.Run(ctx, f.jobs.rdb, keys, args[1], args[3])
}
