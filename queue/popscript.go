package queue

import "github.com/redis/go-redis/v9"

// popScript is asynq's dequeue for several jobs at once, with limits. Nothing moves and no token is spent for a queue that is paused,
// throttled, empty or at a limit. A pop whose answer was lost is undone by the next one, starts and all: none of its jobs has started,
// and all that was looked at for it may have changed. A call that comes after a later one is nobody's any more and does nothing.
//
// A job whose worker has died comes alone: should it be what kills them, it takes no others along that were fetched with it and
// have not started.
//
// The rate's limiter is a list of the last max start times, newest first. The i-th start of a call is allowed when the (max-i+1)-th last
// is older than the window, so no window of that length, wherever it begins, holds more than max. Smoothing is GCRA: "tat"
// is when the next start would be due if all came evenly; one may be early by so much.
//
// What a call does for each of its jobs is two commands; the others are once for all, as they are most of what Redis has to do. A
// lone job of a queue without limits, which is all that a worker with one free slot asks for, has a short way: what is set up for several
// costs as much as the commands do.
//
// A call that fails takes no job along. An ID whose key is gone, or is no job's, is dropped. One whose key Redis refuses, as
// while a slot is moved, stays where it was, with those behind it. What a call has taken is noted before anything else that may
// fail, so that the next one undoes it.
//
// KEYS: pending, paused, active, lease, starts, last (this server's last pop), limits, throttle, tat
// ARGV: lease expiry, task key prefix, this server, most jobs, the number of this call, that of the last one whose jobs have arrived,
// and the declared limits, as Limits.text
// Constants are given to commands as text, which Redis would else make of a number each time.
// Returns {"paused"}, {"empty"}, {"full"}, {"limited", wait in µs}, or {"job", start in µs, 0 without a rate, id, message, id, message, …}.
var popScript = redis.NewScript(`
local owner = ARGV[3] .. ":" .. ARGV[5]
local known = redis.call("MGET", KEYS[6], KEYS[2], KEYS[8], KEYS[9])
local last, paused, throttled, due = known[1], known[2], known[3], known[4]
local call = last and tonumber(string.match(last, "^%d+")) or 0
if call >= tonumber(ARGV[5]) then
	return {"empty"}
end
if call > tonumber(ARGV[6]) then
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
		if redis.pcall("HGET", key, "owner") == lost and redis.call("LREM", KEYS[3], "1", id) == 1 then
			redis.call("RPUSH", KEYS[1], id)
			redis.call("HDEL", key, "owner")
			redis.call("HSET", key, "state", "pending", "pending_since", since)
			redis.pcall("ZREM", KEYS[4], id)
		end
	end
	if stamp ~= "0" then
		redis.call("LREM", KEYS[5], #ids, stamp)
	end
	if after ~= "0" and due == after then
		redis.call("SET", KEYS[9], before, "KEEPTTL")
		due = before
	end
	redis.call("DEL", KEYS[6])
end
if paused then
	return {"paused"}
end
local limits = redis.call("HMGET", KEYS[7], "max", "window", "every", "early", "concurrency")
if ARGV[4] == "1" and limits[1] == "0" and limits[5] == "0" and not throttled then
	local id = redis.pcall("RPOPLPUSH", KEYS[1], KEYS[3])
	if not id then
		return {"empty"}
	end
	local taken = type(id) == "string" -- else Redis is full, which takes the first command of the long way
	local key = taken and ARGV[2] .. id
	local msg = taken and redis.pcall("HGET", key, "msg")
	if type(msg) == "string" then
		redis.call("HSET", key, "state", "active", "owner", owner)
		redis.call("SET", KEYS[6], ARGV[5] .. " 0 0 0 " .. id, "EX", "120")
		redis.call("ZADD", KEYS[4], ARGV[1], id)
		return {"job", "0", id, msg}
	elseif taken then
		redis.call("LMOVE", KEYS[3], KEYS[1], "LEFT", "RIGHT")
	end
end
local function refused(reply)
	if redis.call("LLEN", KEYS[1]) == 0 then
		return {"empty"}
	end
	return reply
end
throttled = throttled and redis.call("PTTL", KEYS[8]) or 0
if throttled > 0 then
	return refused({"limited", string.format("%.0f", throttled * 1000)})
end
local declared = {string.match(ARGV[7], "^(%d+) (%d+) (%d+) (%d+) (%d+)$")}
for i = 1, 5 do
	limits[i] = tonumber(limits[i] or declared[i])
end
local max, window, every, early, concurrency = limits[1], limits[2], limits[3], limits[4], limits[5]
local n = tonumber(ARGV[4])
if concurrency > 0 then
	n = math.min(n, concurrency - redis.call("LLEN", KEYS[3]))
	if n <= 0 then
		return refused({"full"})
	end
end
local now, tat = 0, 0
if max > 0 then
	local time = redis.call("TIME")
	now = tonumber(time[1]) * 1000000 + tonumber(time[2])
	local newest = tonumber(redis.call("LINDEX", KEYS[5], "0") or "0")
	if newest - now > window then
		redis.call("DEL", KEYS[5])
	elseif newest > now then
		now = newest
	end
	if every > 0 then
		tat = tonumber(due or "0")
		if tat - now > window then
			tat = 0
		end
	end
	n = math.min(n, max)
	local starts = redis.call("LRANGE", KEYS[5], string.format("%d", max - n), string.format("%d", max - 1))
	local unused = n - #starts
	local wait, coming = 0, tat
	for i = 1, n do
		local first = i > unused and tonumber(starts[n - i + 1]) or 0
		wait = math.max(window - (now - first), coming - early - now)
		if wait > 0 then
			n = i - 1
			break
		end
		coming = math.max(coming, now) + every
	end
	if n == 0 then
		return refused({"limited", string.format("%.0f", wait)})
	end
end
local stamp, before, after = string.format("%d", now), string.format("%.0f", tat), "0"
local function back(popped, from)
	for i = #popped, from, -1 do
		redis.call("RPUSH", KEYS[1], popped[i])
	end
end
local got, ids, leases, stamps = {"job", stamp}, {}, {}, {}
local alone, failure, looks = false, false, n + 100
while #ids < n and looks > 0 and not alone and not failure do
	local popped = redis.call("RPOP", KEYS[1], math.min(n - #ids, looks))
	if not popped then
		break
	end
	looks = looks - #popped
	for i, id in ipairs(popped) do
		local key = ARGV[2] .. id
		local job = redis.pcall("HMGET", key, "msg", "stalls")
		if job.err and not string.find(job.err, "WRONGTYPE", 1, true) then
			failure = job
			back(popped, i)
			break
		end
		local taken = job[1] and not (job[2] and #ids > 0)
		if taken then
			redis.call("HSET", key, "state", "active", "owner", owner)
			ids[#ids + 1] = id
			leases[#leases + 1], leases[#leases + 2] = ARGV[1], id
			stamps[#stamps + 1] = stamp
			got[#got + 1], got[#got + 2] = id, job[1]
		end
		alone = job[1] and job[2]
		if alone then
			back(popped, taken and i + 1 or i)
			break
		end
	end
end
if #ids == 0 then
	return failure or {"empty"}
end
local running = redis.pcall("LPUSH", KEYS[3], unpack(ids))
if type(running) == "table" then
	back(ids, 1)
	return running
end
if max > 0 and every > 0 then
	after = string.format("%.0f", math.max(tat, now) + every * #ids)
end
redis.call("SET", KEYS[6], table.concat({ARGV[5], stamp, before, after, unpack(ids)}, " "), "EX", "120")
redis.call("ZADD", KEYS[4], unpack(leases))
if max > 0 then
	local keep = string.format("%.0f", window / 1000 + 60000)
	redis.call("LPUSH", KEYS[5], unpack(stamps))
	redis.call("LTRIM", KEYS[5], "0", string.format("%d", max - 1))
	redis.call("PEXPIRE", KEYS[5], keep)
	if every > 0 then
		redis.call("SET", KEYS[9], after, "PX", keep)
	end
end
return got`)
