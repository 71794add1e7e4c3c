package queue

import "github.com/redis/go-redis/v9"

// popScript is asynq's dequeue for several jobs at once, with limits. Nothing moves and no token is spent for a queue that is paused,
// throttled, empty or at a limit. A pop whose answer was lost is undone by the next one, starts and all: none of its jobs has started,
// and all that was looked at for it may have changed. A call that comes after a later one is nobody's any more and does nothing.
//
// A job whose worker has died comes alone: should it be what kills them, it takes no others along that were fetched with it and
// have not started.
//
// The rate's limiter is a list of the last max start times, newest first. One more start is allowed when the max-th last
// is older than the window, so no window of that length, wherever it begins, holds more than max. Smoothing is GCRA: "tat"
// is when the next start would be due if all came evenly; one may be early by so much.
//
// KEYS: pending, paused, active, lease, starts, last (this server's last pop), limits, throttle, tat
// ARGV: lease expiry, task key prefix, this server, most jobs, the declared limits, as Limits.args, the number of this call, and that
// of the last one whose jobs have arrived
// Constants are given to commands as text, which Redis would else make of a number each time.
// Returns {"paused"}, {"empty"}, {"full"}, {"limited", wait in µs}, or {"job", start in µs, 0 without a rate, id, message, id, message, …}.
var popScript = redis.NewScript(`
local owner = ARGV[3] .. ":" .. ARGV[10]
local last = redis.call("GET", KEYS[6])
local call = last and tonumber(string.match(last, "^%d+")) or 0
if call >= tonumber(ARGV[10]) then
	return {"empty"}
end
if call > tonumber(ARGV[11]) then
	local lost, stamp, before, after, names = string.match(last, "^(%d+) (%d+) (%d+) (%d+) (.*)$")
	local ids = {}
	for id in string.gmatch(names, "%S+") do
		table.insert(ids, 1, id)
	end
	lost = ARGV[3] .. ":" .. lost
	local time = redis.call("TIME")
	local since = string.format("%d%06d000", time[1], time[2])
	for _, id in ipairs(ids) do
		local key = ARGV[2] .. id
		if redis.call("HGET", key, "owner") == lost and redis.call("LREM", KEYS[3], "1", id) == 1 then
			redis.call("ZREM", KEYS[4], id)
			redis.call("HDEL", key, "owner")
			redis.call("HSET", key, "state", "pending", "pending_since", since)
			redis.call("RPUSH", KEYS[1], id)
		end
	end
	if stamp ~= "0" then
		redis.call("LREM", KEYS[5], #ids, stamp)
	end
	if after ~= "0" and redis.call("GET", KEYS[9]) == after then
		redis.call("SET", KEYS[9], before, "KEEPTTL")
	end
	redis.call("DEL", KEYS[6])
end
if redis.call("EXISTS", KEYS[2]) == 1 then
	return {"paused"}
end
local function refused(reply)
	if redis.call("LLEN", KEYS[1]) == 0 then
		return {"empty"}
	end
	return reply
end
local throttled = redis.call("PTTL", KEYS[8])
if throttled > 0 then
	return refused({"limited", string.format("%.0f", throttled * 1000)})
end
local limits = redis.call("HMGET", KEYS[7], "max", "window", "every", "early", "concurrency")
for i = 1, 5 do
	limits[i] = tonumber(limits[i] or ARGV[4 + i])
end
local max, window, every, early, concurrency = limits[1], limits[2], limits[3], limits[4], limits[5]
local n = tonumber(ARGV[4])
if concurrency > 0 then
	n = math.min(n, concurrency - redis.call("LLEN", KEYS[3]))
	if n <= 0 then
		return refused({"full"})
	end
end
local now = 0
local newest, tat = 0, 0
if max > 0 then
	local time = redis.call("TIME")
	now = tonumber(time[1]) * 1000000 + tonumber(time[2])
	newest = tonumber(redis.call("LINDEX", KEYS[5], "0") or "0")
	if newest - now > window then
		redis.call("DEL", KEYS[5])
		newest = 0
	elseif newest > now then
		now = newest
	end
	if every > 0 then
		tat = tonumber(redis.call("GET", KEYS[9]) or "0")
		if tat - now > window then
			tat = 0
		end
	end
end
local before, after = string.format("%.0f", tat), "0"
local stamp, oldest = string.format("%d", now), string.format("%d", max - 1)
local got = {"job", stamp}
local wait = 0
for _ = 1, n + 100 do
	if #got >= 2 * n + 2 then
		break
	end
	if max > 0 then
		local first = tonumber(redis.call("LINDEX", KEYS[5], oldest) or "0")
		wait = math.max(window - (now - first), tat - early - now)
		if wait > 0 then
			break
		end
	end
	local id = redis.call("RPOPLPUSH", KEYS[1], KEYS[3])
	if not id then
		break
	end
	local key = ARGV[2] .. id
	local job = redis.call("HMGET", key, "msg", "stalls")
	local msg, stalled = job[1], job[2]
	if stalled and #got > 2 then
		redis.call("LMOVE", KEYS[3], KEYS[1], "LEFT", "RIGHT")
		break
	end
	if msg then
		redis.call("HSET", key, "state", "active", "owner", owner)
		redis.call("HDEL", key, "pending_since")
		redis.call("ZADD", KEYS[4], ARGV[1], id)
		if max > 0 then
			redis.call("LPUSH", KEYS[5], stamp)
			redis.call("LTRIM", KEYS[5], "0", oldest)
			if every > 0 then
				tat = math.max(tat, now) + every
			end
		end
		got[#got + 1] = id
		got[#got + 1] = msg
		if stalled then
			break
		end
	else
		redis.call("LREM", KEYS[3], "1", id)
	end
end
if #got == 2 then
	if wait > 0 then
		return refused({"limited", string.format("%.0f", wait)})
	end
	return {"empty"}
end
if max > 0 then
	local keep = string.format("%.0f", window / 1000 + 60000)
	redis.call("PEXPIRE", KEYS[5], keep)
	if every > 0 then
		after = string.format("%.0f", tat)
		redis.call("SET", KEYS[9], after, "PX", keep)
	end
end
local ids = {ARGV[10], stamp, before, after}
for i = 3, #got, 2 do
	ids[#ids + 1] = got[i]
end
redis.call("SET", KEYS[6], table.concat(ids, " "), "EX", "120")
return got`)
