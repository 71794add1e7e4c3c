package cache

import "github.com/redis/go-redis/v9"

// ttlScript changes the TTLs of entries. It is two scripts: one for a single key, which goes through the client that follows
// slots, and one that has a node name its keys and change them, so that they need not travel. The second names no keys to
// the server, which therefore does not ask that all be of one slot; a key that the node has not, or not any more, is
// refused when it is touched.
type ttlScript struct {
	one, step *redis.Script
}

// newTTLScript takes what is to be done first, with the arguments in ARGV, and the body of a Lua function of a key, and of the
// header of what stands there, that returns 1 for changed, 0 for not, -1 for what is no entry, or an error reply.
func newTTLScript(first, body string) ttlScript {
	function := quick + first + "\nlocal function change(key)\n" + headOf + body + "\nend\n"
	return ttlScript{
		// KEYS: entry. ARGV: as they are done with first.
		one: redis.NewScript(function + `return change(KEYS[1])`),
		// ARGV: the same, then SCAN's cursor, pattern and count, the prefix of what may be changed, and what comes after it in
		// the store's own keys. It returns the next cursor, how many keys SCAN named, how many of them may be changed, how
		// many changed, how many are no entries, and those that were refused.
		step: redis.NewScript(function + `
local cursor, pattern, count, prefix, own = unpack(ARGV, #ARGV - 4)
local found = redis.call('SCAN', cursor, 'MATCH', pattern, 'COUNT', count)
local named, changed, skipped, refused = 0, 0, 0, {}
own = prefix .. own
for _, key in ipairs(found[2]) do
  if find(key, prefix, 1, true) == 1 and sub(key, 1, #own) ~= own then
    named = named + 1
    local n = change(key)
    if type(n) == 'table' then refused[#refused + 1] = key
    elseif n < 0 then skipped = skipped + 1
    else changed = changed + n end
  end
end
return {found[1], #found[2], named, changed, skipped, refused}`),
	}
}

// quick saves looking up names for each of a million keys.
const quick = `
local pcall, type, find, sub, byte, format, floor, head = redis.pcall, type, string.find, string.sub, string.byte, string.format, math.floor, struct.unpack
`

// headOf reads an entry's header, in the function of a ttlScript.
const headOf = `
local h = pcall('GETRANGE', key, '0', '71')
if type(h) == 'table' and not find(h.err, 'WRONGTYPE', 1, true) then return h end
if type(h) ~= 'string' or #h < 72 or sub(h, 1, 2) ~= '\202\002' or byte(h, 3) == 76 then return -1 end
`

// extendScript moves the physical end of one entry to its own end plus (factor-1) times its lifetime, plus a duration,
// so that doing it twice does nothing more. Leases are left alone.
// Arguments: factor-1, added ms, 1 to only count.
var extendScript = newTTLScript(`
local more, by, dry = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'`, `
local start, soft, hard = head('>I8I8I8', h, 17)
local life = soft - floor(start / 1000)
if life < 0 then life = 0 end
local target = floor(hard + more * life + by)
if dry then
  local at = redis.call('PEXPIRETIME', key)
  if at > 0 and target > at then return 1 end
  return 0
end
return pcall('PEXPIREAT', key, format('%d', target), 'GT')`)

// restoreScript moves the physical end of one entry back to its own end. Entries that are past it get a little time,
// so that the undo does not send all their readers to the origin at once.
// Arguments: ms for entries past their end, 1 to only count.
var restoreScript = newTTLScript(`
local t = redis.call('TIME')
local now = t[1] * 1000 + floor(t[2] / 1000)
local grace, dry = tonumber(ARGV[1]), ARGV[2] == '1'`, `
local target = head('>I8', h, 33)
if target <= now then target = now + grace end
if dry then
  if target < redis.call('PEXPIRETIME', key) then return 1 end
  return 0
end
return pcall('PEXPIREAT', key, format('%d', target), 'XX', 'LT')`)
