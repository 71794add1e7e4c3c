package cache

import "github.com/redis/go-redis/v9"

// Each script touches one key, so it runs on the node that owns the slot, on one node and on a cluster alike; or many of one
// master, see keyScript. Offsets are those of header.go, counted from 1. Two-part numbers are compared in parts, because a Lua
// number holds 53 bits. Strings are never compared with <, which asks the server's locale.
//
// A server that is full refuses a script what may take memory, unless it has written something before: any command that may
// write will do, whether or not it has an effect. Scripts that invalidate begin with one, as they take next to none.
//
// None removes a key that it sets then: while the key's slot moves, the master that it moves from refuses scripts what it has not,
// and what the key asks of later loads would be lost.

// beginScript leaves a lease where nothing is, and claims the load. It returns the fill's start in microseconds, when the
// caller loads on the lease that it gave; or else what now stands there, the fill's start, and 1: the caller loads; 0: somebody
// else does until the claim in the header ends; 2: there is a value that the caller has not seen, and which may do. Of a value
// only the header is returned, but in the last case. What a value that was found to be unusable asks of later loads stays in the
// lease.
// Shared arguments: lease without generation and times, its TTL in ms, ms to claim (0: load beside whoever does, and whatever value
// is there), ms that a floor stands. Own: what the lease's generation is made of, see generationAt, and behind it the SHA-1 of a
// value found to be unusable, or generation and start of one that the caller has seen.
var beginScript = newKeyScript(4, carriedFloor+freshGeneration+`
local life, wanted, aged, ms = ARGV[2], ARGV[3], ARGV[4], math.floor(now / 1000)
local claim = struct.pack('>I8', wanted == '0' and 0 or ms + wanted)
local before, behind = string.sub(ARGV[1], 1, 8), struct.pack('>I8', now) .. string.sub(ARGV[1], 25, 48) .. claim .. string.sub(ARGV[1], 57)
`, 1, `
local gen, seen = ..., ''
if #gen > 8 then gen, seen = string.sub(gen, 1, 8), string.sub(gen, 9) end
local lease = before .. generation(gen, t) .. behind
local cur = redis.pcall('SET', key, lease, 'NX', 'GET', 'PX', life)
if not cur then return now end
if type(cur) == 'table' then -- the server is full, or it is of another type
  if string.find(cur.err, 'WRONGTYPE', 1, true) then
    redis.call('PEXPIRE', key, life)
    cur = false
  else
    cur = redis.call('GET', key)
  end
end
if cur and #seen == 40 and redis.sha1hex(cur) == seen then
  local have, floor, ends, left = carried(key, cur, ms, life, aged)
  redis.call('PEXPIRE', key, life)
  if have then
    lease = string.sub(lease, 1, 5) .. struct.pack('>BI2', have, #lease + #floor) .. string.sub(lease, 9, 24) .. ends
      .. string.sub(lease, 41, 72) .. floor .. string.sub(lease, 73)
    redis.call('SET', key, lease, 'PX', math.max(life, left))
    return {lease, now, 1}
  end
  cur = false
end
if not cur then
  redis.call('SET', key, lease, 'PX', life)
  return now
end
if #cur < 72 or string.sub(cur, 1, 2) ~= '\202\002' then return {cur, now, 2} end
if wanted ~= '0' and string.sub(cur, 3, 3) ~= 'L' and string.sub(cur, 9, 24) ~= seen then return {cur, now, 2} end
local head = string.sub(cur, 1, struct.unpack('>I2', cur, 7))
local start = math.max(now, struct.unpack('>I8', cur, 17) + 1)
if wanted ~= '0' then
  local who, bare = string.sub(gen, 1, 4), string.sub(cur, 3, 3) == 'L' -- a value has no room for who claims
  local own = string.sub(cur, 9, 12) == who or bare and string.sub(cur, 65, 68) == who -- the client has sent this twice
  local left = struct.unpack('>I8', cur, 49) - ms
  -- One that is longer than any was made by a server whose clock was ahead of this one's, before a failover.
  if left > 0 and left <= tonumber(wanted) and not own then return {head, start, 0} end
  local claimed = claim .. string.sub(cur, 57, 64) .. (bare and who or string.sub(cur, 65, 68))
  redis.call('SETRANGE', key, '48', claimed)
  head = string.sub(head, 1, 48) .. claimed .. string.sub(head, 69)
end
if string.sub(cur, 3, 3) == 'L' then redis.call('PEXPIRE', key, life, 'GT') end
return {head, start, 1}
`)

// claimScript keeps a claim for longer, or gives it up, if it still stands. It returns its new end, or 0. When the answer to an
// earlier call was lost, the claim may end later than its owner knows. An end that is not a whole claim later is still the
// owner's: whoever else claims does so after that end, for a whole claim.
// A lease lasts as long as it is claimed again. KEYS: entry. ARGV: generation, claim, ms from now (0 gives up), ms that the claim
// may have been kept for unheard (or 0), a lease's TTL in ms (or nothing).
var claimScript = redis.NewScript(`
local h = redis.pcall('GETRANGE', KEYS[1], '0', '55')
if type(h) ~= 'string' or #h < 56 or string.sub(h, 9, 16) ~= ARGV[1] then return 0 end
local stands, known = struct.unpack('>I8', h, 49), struct.unpack('>I8', ARGV[2])
if stands < known or stands > known + ARGV[4] then return 0 end
local t, till = redis.call('TIME'), 0
if ARGV[3] ~= '0' then
  till = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[3]
  if ARGV[4] ~= '0' then till = math.min(till, known + ARGV[4]) end -- this answer may be lost, too
end
redis.call('SETRANGE', KEYS[1], '48', struct.pack('>I8', till))
if ARGV[5] and string.sub(h, 3, 3) == 'L' then redis.call('PEXPIRE', KEYS[1], ARGV[5], 'GT') end
return till
`)

// storeScript lands a fill if its lease still stands and what stands there is not newer. Who begins on a lease begins after it,
// also when the server's clock is behind. Before a lease's hard expiry nothing covers its unknown positions. Of
// known ones those count that are of databases which the fill was read from; a fill of unknown age is covered by none until the
// lease's soft expiry, which older versions leave out, and by none of a value until that is as old as what a floor shuts out.
// What was filled in an earlier epoch is older, or began before, when nothing else tells. It returns 'stored', 'fenced' or
// 'older', with the tokens of the newer value where they say so.
// Shared argument: ms that a floor stands. Own: the first 40 bytes of the header, whose expiries are the ms until then, the rest
// with the payload, the TTL in ms.
var storeScript = newKeyScript(1, `
local ms, aged = math.floor(now / 1000), ARGV[1]
`, 3, `
local first, rest, life = ...
local cur = redis.pcall('GETRANGE', key, '0', '151')
if type(cur) == 'table' then return string.find(cur.err, 'WRONGTYPE', 1, true) and 'fenced' or cur end
if #cur < 72 or string.sub(cur, 1, 2) ~= '\202\002' or string.sub(cur, 9, 16) ~= string.sub(first, 9, 16) then
  return 'fenced'
end
local have, give = string.byte(cur, 6), string.byte(first, 6)
local lease, soft, hard = string.sub(cur, 3, 3) == 'L', struct.unpack('>I8I8', cur, 25)
local over = soft > 0 and ms >= soft
if not lease then over = math.floor(struct.unpack('>I8', cur, 17) / 1000) + aged <= ms end
local elsewhere, compared = give > 0 or over, false
for i = 0, have - 1 do
  local system, tl, hi, lo = struct.unpack('>c8I4I4I4', cur, 73 + i * 20)
  local covered = elsewhere
  if tl == 0 then covered = not lease or ms >= hard end
  for j = 0, give - 1 do
    local s, t, h, l = struct.unpack('>c8I4I4I4', rest, 33 + j * 20)
    if s == system and tl ~= 0 then
      compared = true
      covered = t > tl or (t == tl and (h > hi or (h == hi and l >= lo)))
    end
  end
  if not covered then return 'older' .. (lease and '' or string.sub(cur, 73, 72 + have * 20)) end
end
if not lease and struct.unpack('>I8', rest, 17) < struct.unpack('>I8', cur, 57) then
  return 'older'
end
if not compared and not lease and struct.unpack('>I8', first, 17) < struct.unpack('>I8', cur, 17) then
  return 'older'
end
local fresh, whole = struct.unpack('>I8I8', first, 25)
redis.call('SET', key, string.sub(first, 1, 24) .. struct.pack('>I8I8', ms + fresh, ms + whole) .. rest, 'PX', life)
return 'stored'
`)

// putScript stores a value that the caller gave, over whatever is there.
// KEYS: entry. ARGV: as storeScript's arguments.
var putScript = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local ms, first = math.floor(now / 1000), ARGV[1]
local fresh, whole = struct.unpack('>I8I8', first, 25)
redis.call('SET', KEYS[1], string.sub(first, 1, 16) .. struct.pack('>I8I8I8', now, ms + fresh, ms + whole) .. ARGV[2], 'PX', ARGV[3])
return 'stored'
`)

// freshGeneration is the part of scripts that makes the generation of a lease of one that was given and of the time, so that a
// script that a client sends twice does not put back a lease that somebody has taken away in between.
const freshGeneration = `
local function generation(given, t)
  return string.sub(given, 1, 4) .. struct.pack('>I4', t[1] % 4096 * 1000000 + t[2])
end
`

// wholeHeader is the part of scripts that returns how many as-of tokens an entry has, of which it is given what they may take of
// its beginning, or nil when it is none, or is cut short.
const wholeHeader = `
local function tokensOf(h)
  if type(h) ~= 'string' or #h < 72 or string.sub(h, 1, 2) ~= '\202\002' then return nil end
  local have = string.byte(h, 6)
  return have <= 4 and #h >= 72 + have * 20 and have or nil
end
`

// deleteScript removes an entry and leaves a lease that says what loads must have seen, if anything: the tokens given, those
// that an earlier delete left there, and those of the value, if its load may have landed on such a lease. Unknown positions
// stand beside known ones, and end with the TTL of the delete that brought them, however long loads and other deletes keep the
// lease: no load can satisfy them. Loads of unknown age cannot satisfy known ones, which end for them with the TTL of the last
// delete that brought some. It returns 1 when a value was there, 0 when not.
// KEYS: entry. ARGV: lease, its TTL in ms, and that with known positions.
var deleteScript = redis.NewScript(wholeHeader + freshGeneration + `
local cur = redis.pcall('GETRANGE', KEYS[1], '0', '151')
local new = ARGV[1]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local tokens, order, soft, hard, ttl = {}, {}, 0, 0, tonumber(ARGV[2])
local function add(from, known, unknown)
  for i = 0, string.byte(from, 6) - 1 do
    local system, tl, hi, lo = struct.unpack('>c8I4I4I4', from, 73 + i * 20)
    if tl ~= 0 or unknown > now then
      if tl == 0 then
        system, hard = '?' .. system, math.max(hard, unknown)
      else
        soft, ttl = math.max(soft, known), tonumber(ARGV[3])
      end
      local was = tokens[system]
      if not was and #order < 4 then order[#order + 1] = system end
      if not was or tl > was.tl or (tl == was.tl and (hi > was.hi or (hi == was.hi and lo > was.lo))) then
        tokens[system] = {tl = tl, hi = hi, lo = lo, text = string.sub(from, 73 + i * 20, 92 + i * 20)}
      end
    end
  end
end
local till = now + ARGV[2]
add(new, till, till)
local lease = tokensOf(cur) and string.sub(cur, 3, 3) == 'L'
if lease then
  local known, unknown = struct.unpack('>I8I8', cur, 25)
  if known == 0 then known = till end -- of an older version
  add(cur, known, unknown)
elseif tokensOf(cur) then
  local start = math.min(math.floor(struct.unpack('>I8', cur, 17) / 1000), now) -- else of a server whose clock was ahead
  if start + ARGV[3] > now then add(cur, start + ARGV[2], 0) end
end
if #order == 0 then
  redis.call('UNLINK', KEYS[1])
else
  local text = ''
  for _, system in ipairs(order) do text = text .. tokens[system].text end
  redis.call('PEXPIRE', KEYS[1], ttl) -- for a server that is full
  redis.call('SET', KEYS[1], string.sub(new, 1, 5) .. string.char(#order) .. struct.pack('>I2', 72 + #text)
    .. generation(string.sub(new, 9, 16), t) .. string.sub(new, 17, 24) .. struct.pack('>I8I8', soft, hard) .. string.sub(new, 41, 72) .. text, 'PX', ttl)
end
if lease or cur == '' then return 0 end
return 1
`)
