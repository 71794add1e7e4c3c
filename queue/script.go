package queue

import "github.com/redis/go-redis/v9"

// popScript is asynq's dequeue with a limiter and an answer that can be asked for again. Nothing moves and no token
// is spent when the queue is paused, empty or at its limit.
//
// The limiter is a list of the last max start times, newest first. One more start is allowed when the max-th last is
// older than the window, so no window of that length, wherever it begins, holds more than max.
//
// KEYS: pending, paused, active, lease, starts, last (this server's last pop)
// ARGV: lease expiry, task key prefix, max, window in µs, nonce of this pop
// Returns {"paused"}, {"empty"}, {"limited", wait in µs} or {"job", message, id, start in µs}.
var popScript = redis.NewScript(`
local last = redis.call("GET", KEYS[6])
if last and string.sub(last, 1, #ARGV[5] + 1) == ARGV[5] .. " " then
	local id = string.sub(last, #ARGV[5] + 2)
	local key = ARGV[2] .. id
	if redis.call("HGET", key, "owner") == ARGV[5] and redis.call("ZSCORE", KEYS[4], id) then
		redis.call("ZADD", KEYS[4], ARGV[1], id)
		return {"job", redis.call("HGET", key, "msg"), id, "0"}
	end
end
if redis.call("EXISTS", KEYS[2]) == 1 then
	return {"paused"}
end
if redis.call("EXISTS", KEYS[1]) == 0 then
	return {"empty"}
end
local max = tonumber(ARGV[3])
local window = tonumber(ARGV[4])
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if max > 0 then
	local newest = tonumber(redis.call("LINDEX", KEYS[5], 0) or "0")
	if newest - now > window then
		redis.call("DEL", KEYS[5])
	elseif newest > now then
		now = newest
	end
	local first = tonumber(redis.call("LINDEX", KEYS[5], max - 1) or "0")
	if now - first < window then
		return {"limited", string.format("%.0f", window - (now - first))}
	end
end
for _ = 1, 100 do
	local id = redis.call("RPOPLPUSH", KEYS[1], KEYS[3])
	if not id then
		return {"empty"}
	end
	local key = ARGV[2] .. id
	local msg = redis.call("HGET", key, "msg")
	if msg then
		redis.call("HSET", key, "state", "active", "owner", ARGV[5])
		redis.call("HDEL", key, "pending_since")
		redis.call("ZADD", KEYS[4], ARGV[1], id)
		redis.call("SET", KEYS[6], ARGV[5] .. " " .. id, "EX", 120)
		local stamp = string.format("%.0f", now)
		if max > 0 then
			redis.call("LPUSH", KEYS[5], stamp)
			redis.call("LTRIM", KEYS[5], 0, max - 1)
			redis.call("PEXPIRE", KEYS[5], string.format("%.0f", window / 1000 + 60000))
		end
		return {"job", msg, id, stamp}
	end
	redis.call("LREM", KEYS[3], 1, id)
end
return {"empty"}`)

// backScript returns a running job to the head of its queue, or to the jobs that wait for a later try, and counts
// no attempt. Unlike asynq's requeue it keeps the job's age visible.
//
// KEYS: active, lease, pending, retry, task key; ARGV: id, now in ns, due in s or "" for now
var backScript = redis.NewScript(`
if redis.call("LREM", KEYS[1], 0, ARGV[1]) == 0 then
	return redis.error_reply("NOT FOUND")
end
redis.call("ZREM", KEYS[2], ARGV[1])
if ARGV[3] == "" then
	redis.call("RPUSH", KEYS[3], ARGV[1])
	redis.call("HSET", KEYS[5], "state", "pending", "pending_since", ARGV[2])
else
	redis.call("ZADD", KEYS[4], ARGV[3], ARGV[1])
	redis.call("HSET", KEYS[5], "state", "retry")
end
return redis.status_reply("OK")`)

// reapScript returns the job of a dead worker to the head of its queue. The lease's score proves that nobody has
// extended it since it was observed; "" stands for a running job without a lease.
//
// KEYS: active, lease, pending, task key; ARGV: id, observed score or "", now in ns, most stalls
// Returns 1 when returned, 0 when it was not dead after all, 2 when it has stalled too often.
var reapScript = redis.NewScript(`
local score = redis.call("ZSCORE", KEYS[2], ARGV[1])
if (score or "") ~= ARGV[2] then
	return 0
end
if redis.call("EXISTS", KEYS[4]) == 0 then
	redis.call("LREM", KEYS[1], 0, ARGV[1])
	redis.call("ZREM", KEYS[2], ARGV[1])
	return 0
end
if score and tonumber(redis.call("HGET", KEYS[4], "stalls") or "0") >= tonumber(ARGV[4]) then
	return 2
end
redis.call("ZREM", KEYS[2], ARGV[1])
if redis.call("LREM", KEYS[1], 0, ARGV[1]) == 0 then
	return 0
end
redis.call("RPUSH", KEYS[3], ARGV[1])
redis.call("HSET", KEYS[4], "state", "pending", "pending_since", ARGV[3])
redis.call("HINCRBY", KEYS[4], "stalls", 1)
return 1`)

// depthScript reads a queue's state at once.
//
// KEYS: pending, active, scheduled, retry, archived, completed, paused, parked; ARGV: task key prefix
// Returns their sizes, 1 for paused, and the age in ms of the oldest waiting job, -1 when unknown.
var depthScript = redis.NewScript(`
local age = 0
local id = redis.call("LINDEX", KEYS[1], -1)
if id then
	local since = redis.call("HGET", ARGV[1] .. id, "pending_since")
	age = -1
	if since then
		local time = redis.call("TIME")
		age = math.max(0, tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - math.floor(tonumber(since) / 1000000))
	end
end
return {
	redis.call("LLEN", KEYS[1]), redis.call("LLEN", KEYS[2]),
	redis.call("ZCARD", KEYS[3]), redis.call("ZCARD", KEYS[4]), redis.call("ZCARD", KEYS[5]), redis.call("ZCARD", KEYS[6]),
	redis.call("EXISTS", KEYS[7]), redis.call("LLEN", KEYS[8]), age
}`)

// retryScript gives up to n failed jobs, the oldest first, a fresh set of attempts at the end of the queue. The two
// bytes are protobuf's "field 6 (retried) is 0": of a scalar field that occurs twice the last one counts, so the
// message needs no decoding.
//
// KEYS: archived, pending; ARGV: task key prefix, n, now in ns
// Returns {taken from the archive, enqueued}.
var retryScript = redis.NewScript(`
local ids = redis.call("ZRANGE", KEYS[1], 0, ARGV[2] - 1)
local moved = 0
for _, id in ipairs(ids) do
	redis.call("ZREM", KEYS[1], id)
	local key = ARGV[1] .. id
	local msg = redis.call("HGET", key, "msg")
	if msg then
		redis.call("HSET", key, "msg", msg .. "\48\0", "state", "pending", "pending_since", ARGV[3])
		redis.call("HDEL", key, "stalls")
		redis.call("LPUSH", KEYS[2], id)
		moved = moved + 1
	end
end
return {#ids, moved}`)

// moveScript moves up to n jobs between two lists in order. KEYS: from, to; ARGV: n, from side, to side
var moveScript = redis.NewScript(`
for i = 1, tonumber(ARGV[1]) do
	if not redis.call("LMOVE", KEYS[1], KEYS[2], ARGV[2], ARGV[3]) then
		return i - 1
	end
end
return tonumber(ARGV[1])`)

// discardScript deletes up to n waiting jobs with their unique locks. KEYS: pending; ARGV: task key prefix, n
var discardScript = redis.NewScript(`
for i = 1, tonumber(ARGV[2]) do
	local id = redis.call("RPOP", KEYS[1])
	if not id then
		return i - 1
	end
	local lock = redis.call("HGET", ARGV[1] .. id, "unique_key")
	if lock and redis.call("GET", lock) == id then
		redis.call("DEL", lock)
	end
	redis.call("DEL", ARGV[1] .. id)
end
return tonumber(ARGV[2])`)
