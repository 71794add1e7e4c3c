package queue

import "github.com/redis/go-redis/v9"

// doneScript is endScript for one job that is done and was fetched here: most calls are of that kind where nothing can be batched.
//
// KEYS: active, lease, task key, processed today, processed, and the unique key if there is one; ARGV: id, owner, expiry of the daily
// counter in s
// Returns {"OK"}, {"NOT FOUND"} or {{why Redis refuses it}}, and READONLY as such, so that go-redis looks for the master.
var doneScript = redis.NewScript(`
local has, holder = redis.pcall("HGET", KEYS[3], "owner"), KEYS[6] and redis.pcall("GET", KEYS[6])
if type(has) == "table" then
	return {{has.err}}
end
if type(holder) == "table" and not string.find(holder.err, "WRONGTYPE", 1, true) then
	return {{holder.err}}
end
local taken = has == ARGV[2] and redis.pcall("LREM", KEYS[1], "-1", ARGV[1])
if type(taken) == "table" then
	return string.find(taken.err, "^READONLY") and taken or {{taken.err}}
elseif taken ~= 1 then
	local write = redis.pcall("ZREM", KEYS[2], "") -- who takes no writes may not have heard of the job; a full server takes this one
	if type(write) ~= "table" or string.find(write.err, "WRONGTYPE", 1, true) then
		return {"NOT FOUND"}
	end
	return string.find(write.err, "^READONLY") and write or {{write.err}}
end
redis.pcall("ZREM", KEYS[2], ARGV[1])
redis.call("DEL", KEYS[3])
if holder == ARGV[1] then
	redis.call("DEL", KEYS[6])
end
if redis.pcall("INCRBY", KEYS[4], "1") == 1 then
	redis.call("EXPIREAT", KEYS[4], ARGV[3])
end
if type(redis.pcall("INCRBY", KEYS[5], "1")) == "table" then
	redis.call("SET", KEYS[5], "1")
end
return {"OK"}`)

// endScript records how running jobs ended: what asynq's done, complete, retry, archive and requeue do, for several jobs
// at once, with differences. Only the worker that popped a job may end it: one that was taken for dead, whose job has
// another owner now, is told "NOT FOUND". A job nobody here popped may be ended when its lease is over. A lost lease key does
// not leave the job's data behind. The time since which it waited goes, or asynq's tools would make it wait since then. Failed
// jobs are never cut to a number.
//
// A job that cannot be ended stays as it was, and takes no other one along: what Redis may refuse, as while a slot is moved, is
// asked for before anything of the job is changed, or the change is taken back. Leases and counters that fail keep no end back.
//
// KEYS: active, lease, pending, retry, archived, completed, processed today, processed, failed today, failed, and starts if one is given back
// ARGV: task key prefix, now in s, now in ns, expiry of the daily counters in s, then by job: verb, id, owner or "",
// message or "", score or "", unique key or "", failed attempt to be counted "1" or ""
// The verbs are done, complete, retry, archive, and back: to the head of the queue, or to those that wait for a later try
// when there is a score. That one's message is the start that it has not used, as the limiter has stamped it: starts of one stamp are
// as good as each other, and what the limiter has cut off is too old to count. Returns by job "OK", "NOT FOUND" or {why Redis refuses it}, and READONLY for all, so that go-redis looks for
// the master: nothing was written then.
var endScript = redis.NewScript(`
local replies, ended, deleted, gone = {}, {}, {}, {}
local processed, failed = 0, 0
local sets = {retry = KEYS[4], back = KEYS[4], archive = KEYS[5], complete = KEYS[6]}
local function refused(reply)
	return type(reply) == "table" and reply
end
for i = 5, #ARGV, 7 do
	local verb, id, owner, msg, score, unique, counted = unpack(ARGV, i, i + 6)
	local key = ARGV[1] .. id
	local has, holder = redis.pcall("HGET", key, "owner"), unique ~= "" and redis.pcall("GET", unique)
	local mine, failure = has == owner, refused(has)
	if not has then
		failure = refused(redis.pcall("EXISTS", KEYS[1], key)) -- of two keys Redis says when one may not have come yet
	end
	if owner == "" then
		local lease = tonumber(redis.pcall("ZSCORE", KEYS[2], id))
		mine = lease and lease <= tonumber(ARGV[2])
	end
	if refused(holder) and not string.find(holder.err, "WRONGTYPE", 1, true) then
		failure = failure or holder
	elseif unique ~= "" and not holder then
		failure = failure or refused(redis.pcall("EXISTS", KEYS[1], unique))
	end
	local taken = not failure and mine and not gone[id] and redis.pcall("LREM", KEYS[1], "-1", id)
	failure = failure or refused(taken)
	if taken == 1 and verb ~= "done" then
		if verb == "back" and score == "" then
			failure = refused(redis.pcall("RPUSH", KEYS[3], id))
		else
			failure = refused(redis.pcall("ZADD", sets[verb], score, id))
		end
		if failure then
			redis.call("RPUSH", KEYS[1], id)
		end
	end
	local write = not failure and taken ~= 1 and refused(redis.pcall("ZREM", KEYS[2], "")) -- who takes no writes may not have heard of the job; a full server takes this one
	if write and not string.find(write.err, "WRONGTYPE", 1, true) then
		failure = write
	end
	if failure and string.find(failure.err, "^READONLY") then
		return failure
	elseif failure or taken ~= 1 then
		replies[#replies + 1] = failure and {failure.err} or "NOT FOUND"
	else
		ended[#ended + 1], gone[id] = id, true
		if verb ~= "done" then
			redis.call("HDEL", key, "owner", "pending_since")
		end
		if verb == "done" then
			deleted[#deleted + 1] = key
			processed = processed + 1
		elseif verb == "complete" then
			redis.call("HSET", key, "msg", msg, "state", "completed")
			processed = processed + 1
		elseif verb == "retry" then
			redis.call("HSET", key, "msg", msg, "state", "retry")
			if counted == "1" then
				processed = processed + 1
				failed = failed + 1
			end
		elseif verb == "archive" then
			redis.call("HSET", key, "msg", msg, "state", "archived")
			processed = processed + 1
			failed = failed + 1
		elseif score == "" then
			redis.call("HSET", key, "state", "pending", "pending_since", ARGV[3])
		else
			redis.call("HSET", key, "state", "retry")
		end
		if verb == "back" and msg ~= "" then
			redis.pcall("LREM", KEYS[11], "1", msg)
		end
		if holder == id then
			redis.call("DEL", unique)
		end
		replies[#replies + 1] = "OK"
	end
end
if #ended > 0 then
	redis.pcall("ZREM", KEYS[2], unpack(ended))
end
if #deleted > 0 then
	redis.call("DEL", unpack(deleted))
end
local function count(day, total, n)
	if n > 0 then
		if redis.pcall("INCRBY", day, n) == n then
			redis.call("EXPIREAT", day, ARGV[4])
		end
		if not pcall(redis.call, "INCRBY", total, n) then
			redis.call("SET", total, n)
		end
	end
end
count(KEYS[7], KEYS[8], processed)
count(KEYS[9], KEYS[10], failed)
return replies`)
