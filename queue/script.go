package queue

import "github.com/redis/go-redis/v9"

// reapScript returns the job of a dead worker to the head of its queue. The lease's score proves that nobody has
// extended it since it was observed; "" stands for a running job without a lease. A job that has stalled too often goes to
// the failed ones, with the reason appended to its message. It leaves a mark in the job, so that the same call, made again because its
// answer was lost, is answered in the same way.
//
// A running ID whose key is gone, or is no job's, is dropped. Where Redis refuses the list or the set that it is to go to, it stays as it
// was. The first write is one that a full Redis takes.
//
// KEYS: active, lease, pending, task key, archived; ARGV: id, observed score or "", now in ns, most stalls, now in s, reason
// Returns 1 when returned, 0 when it was not dead after all, 2 when it has failed.
var reapScript = redis.NewScript(`
local score = redis.call("ZSCORE", KEYS[2], ARGV[1])
local job = redis.pcall("HMGET", KEYS[4], "msg", "stalls", "reaped")
for reply = 1, 2 do
	if job[3] == reply .. ":" .. ARGV[3] then
		return reply
	end
end
if (score or "") ~= ARGV[2] then
	return 0
end
if job.err and not string.find(job.err, "WRONGTYPE", 1, true) then
	return job
end
local running = redis.call("LREM", KEYS[1], 0, ARGV[1])
redis.call("ZREM", KEYS[2], ARGV[1])
if running == 0 or job.err or redis.call("EXISTS", KEYS[4]) == 0 then
	return 0
end
local stalls = (tonumber(job[2]) or 0) + 1
local failed, moved = stalls > tonumber(ARGV[4])
if failed then
	moved = redis.pcall("ZADD", KEYS[5], ARGV[5], ARGV[1])
else
	moved = redis.pcall("RPUSH", KEYS[3], ARGV[1])
end
if type(moved) == "table" then
	redis.call("RPUSH", KEYS[1], ARGV[1])
	if score then
		redis.call("ZADD", KEYS[2], score, ARGV[1])
	end
	return moved
end
redis.call("HDEL", KEYS[4], "owner", "pending_since")
if failed then
	redis.call("HSET", KEYS[4], "stalls", stalls, "state", "archived", "reaped", "2:" .. ARGV[3], "msg", (job[1] or "") .. ARGV[6])
	return 2
end
redis.call("HSET", KEYS[4], "stalls", stalls, "state", "pending", "reaped", "1:" .. ARGV[3], "pending_since", ARGV[3])
return 1`)

// depthScript reads a queue's state at once.
//
// KEYS: pending, active, scheduled, retry, archived, completed, paused, parked; ARGV: task key prefix
// Returns their sizes, 1 for paused, and the age in ms of the oldest waiting job, -1 when unknown.
var depthScript = redis.NewScript(`
local age = 0
local id = redis.call("LINDEX", KEYS[1], -1)
if id then
	local since = redis.pcall("HGET", ARGV[1] .. id, "pending_since")
	age = -1
	if type(since) == "string" then
		local time = redis.call("TIME")
		age = math.max(0, tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - math.floor(tonumber(since) / 1000000))
	end
end
return {
	redis.call("LLEN", KEYS[1]), redis.call("LLEN", KEYS[2]),
	redis.call("ZCARD", KEYS[3]), redis.call("ZCARD", KEYS[4]), redis.call("ZCARD", KEYS[5]), redis.call("ZCARD", KEYS[6]),
	redis.call("EXISTS", KEYS[7]), redis.call("LLEN", KEYS[8]), age
}`)

// moveScript moves up to n jobs between two lists in order. KEYS: from, to; ARGV: n, from side, to side
var moveScript = redis.NewScript(`
for i = 1, tonumber(ARGV[1]) do
	if not redis.call("LMOVE", KEYS[1], KEYS[2], ARGV[2], ARGV[3]) then
		return i - 1
	end
end
return tonumber(ARGV[1])`)
