package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// forwardScript makes jobs wait for a worker whose time has come, by Redis's clock and to the millisecond: asynq's goes by
// whole seconds. It returns how many, 100 at most.
//
// KEYS: scheduled or retry, pending; ARGV: task key prefix, group key prefix
var forwardScript = redis.NewScript(`
local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", string.format("%.6f", now), "LIMIT", "0", "100")
for _, id in ipairs(ids) do
	local key = ARGV[1] .. id
	local group = redis.call("HGET", key, "group")
	redis.call("ZREM", KEYS[1], id)
	if group and group ~= "" then
		redis.call("ZADD", ARGV[2] .. group, time[1], id)
		redis.call("HSET", key, "state", "aggregating")
	else
		redis.call("LPUSH", KEYS[2], id)
		redis.call("HSET", key, "state", "pending", "pending_since", string.format("%.0f", now * 1000000) .. "000")
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
