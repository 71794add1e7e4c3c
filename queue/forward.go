package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// forwardScript makes jobs wait for a worker whose time has come, by Redis's clock and to the millisecond: asynq's goes by
// whole seconds. It returns how many, 100 at most.
//
// An ID whose key is gone, or is no job's, is dropped. Where Redis refuses a key, or the list or the group that the job is to go to, or
// the job's key may not have come yet, as while the slot is moved, the job stays where it was, with those behind it; why is answered
// when it is the first. It leaves its place last: when none are left there, the key takes nothing back while the slot is moved. To drop
// nobody first makes a full Redis take the rest.
//
// KEYS: scheduled or retry, pending; ARGV: task key prefix, group key prefix
var forwardScript = redis.NewScript(`
local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", string.format("%.6f", now), "LIMIT", "0", "100")
local function forward(id)
	local key = ARGV[1] .. id
	local job = redis.pcall("HMGET", key, "state", "group")
	local gone = job.err
	if gone and not string.find(job.err, "WRONGTYPE", 1, true) then
		return job
	elseif not gone and not job[1] then
		local there = redis.pcall("EXISTS", KEYS[1], key) -- of two keys Redis says when one may not have come yet
		if type(there) == "table" then
			return there
		end
		gone = there < 2
	end
	redis.call("ZREM", KEYS[1], gone and id or "")
	if gone then
		return false
	end
	local group, moved = job[2]
	local grouped = group and group ~= ""
	if grouped then
		local there = redis.pcall("EXISTS", KEYS[1], ARGV[2] .. group)
		if type(there) == "table" then
			return there
		end
		moved = redis.pcall("ZADD", ARGV[2] .. group, time[1], id)
	else
		moved = redis.pcall("LPUSH", KEYS[2], id)
	end
	if type(moved) == "table" then
		return moved
	end
	redis.call("ZREM", KEYS[1], id)
	if grouped then
		redis.call("HSET", key, "state", "aggregating")
	else
		redis.call("HSET", key, "state", "pending", "pending_since", string.format("%.0f", now * 1000000) .. "000")
	end
	return false
end
for i, id in ipairs(ids) do
	local failure = forward(id)
	if failure then
		return i > 1 and i - 1 or failure
	end
end
return #ids`)

// forward answers asynq's own look for jobs whose time has come.
func (f *fetcher) forward(ctx context.Context, keys []string, args []any, call func() *redis.Cmd) *redis.Cmd {
	if keys[0] != asynqKey(f.queue.Name, "scheduled") && keys[0] != asynqKey(f.queue.Name, "retry") {
		return call()
	}
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	return forwardScript.Run(ctx, f.jobs.rdb, keys, args[1], args[3])
}
