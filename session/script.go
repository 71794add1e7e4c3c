package session

import "github.com/redis/go-redis/v9"

// commitScript stores a session. KEYS: session, tombstone. ARGV: value, milliseconds to live, and the SHA-1 of the value
// that was loaded, empty for a new session. It returns 1 when stored, 0 when the session is gone, a list when its token was
// renewed, or the value that somebody else has stored since.
var commitScript = redis.NewScript(`
local gone = redis.call('GET', KEYS[2])
if gone then return gone == '' and 0 or {gone} end
if ARGV[3] ~= '' then
	local now = redis.call('GET', KEYS[1])
	if not now then return 0 end
	if redis.sha1hex(now) ~= ARGV[3] then return now end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// deleteScript destroys a session, leaves the tombstone and tells the other instances. KEYS: session, tombstone. ARGV: the
// tombstone's milliseconds to live, channel, message, and what the tombstone holds. A user who may not publish still logs
// out. One that waits for the end of its request lives on for as long as that may take.
var deleteScript = redis.NewScript(`
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[4], 'PX', string.format('%d', math.max(ARGV[1], redis.call('PTTL', KEYS[2]))))
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1`)

// renewScript is deleteScript for a session that is to go on under another token, with the same KEYS and ARGV. It returns 0
// and changes nothing when the session is gone, or renewed, already: who has ended it has the last word. A client may send it
// twice, and then finds what it has left itself.
var renewScript = redis.NewScript(`
local now = redis.call('GET', KEYS[2])
if now == ARGV[4] then return 1 end
if now or redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
return 1`)

// decideScript closes a tombstone that is open. KEYS: tombstone. ARGV: what it holds from now on, what it does while it is
// open, and its milliseconds to live then. It returns 0 and changes nothing when the session has been ended meanwhile.
var decideScript = redis.NewScript(`
local now = redis.call('GET', KEYS[1])
if now == ARGV[1] then return 1 end
if now ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1`)

// moveScript takes a session from its raw key to its hashed one. KEYS: hashed, its tombstone, raw. ARGV: the value to
// store, the SHA-1 of what the raw key had, and milliseconds to live if it had no end. It returns 0 when the raw key has
// something else now.
var moveScript = redis.NewScript(`
local now = redis.call('GET', KEYS[3])
if not now or redis.sha1hex(now) ~= ARGV[2] then return 0 end
local ttl = redis.call('PTTL', KEYS[3])
if ttl < 1 then ttl = ARGV[3] end
redis.call('DEL', KEYS[3])
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl) end
return 1`)

// latestScript enters a revocation in the list of the latest ones. KEYS: list. ARGV: the entry, the length of the list less
// one, and milliseconds to live.
var latestScript = redis.NewScript(`
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 0, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`)

// readScript returns that list. It is a script so that a cluster client that sends reads to replicas asks the master.
var readScript = redis.NewScript(`return redis.call('LRANGE', KEYS[1], 0, -1)`)
