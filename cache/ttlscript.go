package cache

import "github.com/redis/go-redis/v9"

// ttlScript changes the TTLs of entries. It is two scripts: one for a single key, which goes through the client that follows
// slots, and one for many, which goes to a node that has them. The second names no keys to the server, which therefore
// does not ask that all be of one slot; a key that the node has not, or not any more, is refused when it is touched.
type ttlScript struct {
	one, many *redis.Script
}

// newTTLScript takes the body of a Lua function of a key and the further arguments as a table. It returns 1 for changed, 0
// for not, -1 for what is no entry, or an error reply.
func newTTLScript(body string) ttlScript {
	function := "local function change(key, arg)\n" + body + "\nend\n"
	return ttlScript{
		// KEYS: entry. ARGV: as the body takes them.
		one: redis.NewScript(function + `return change(KEYS[1], ARGV)`),
		// ARGV: how many come before the keys, then the arguments as the body takes them, then the keys. It returns how many
		// changed, how many are no entries, and the numbers of the keys, from 1, that were refused.
		many: redis.NewScript(function + `
local first = tonumber(ARGV[1])
local arg = {}
for i = 2, first do arg[i - 1] = ARGV[i] end
local changed, skipped, refused = 0, 0, {}
for i = first + 1, #ARGV do
  local n = change(ARGV[i], arg)
  if type(n) == 'table' then refused[#refused + 1] = i - first
  elseif n < 0 then skipped = skipped + 1
  else changed = changed + n end
end
return {changed, skipped, refused}`),
	}
}

// headOf reads an entry's header, in the body of a ttlScript.
const headOf = `
local h = redis.pcall('GETRANGE', key, '0', '71')
if type(h) == 'table' and not string.find(h.err, 'WRONGTYPE', 1, true) then return h end
if type(h) ~= 'string' or #h < 72 or string.sub(h, 1, 2) ~= '\202\002' or string.byte(h, 3) == 76 then return -1 end
`

// extendScript moves the physical end of one entry to its own end plus (factor-1) times its lifetime, plus a duration,
// so that doing it twice does nothing more. Leases are left alone.
// Arguments: factor-1, added ms, 1 to only count.
var extendScript = newTTLScript(headOf + `
local start, soft, hard = struct.unpack('>I8I8I8', h, 17)
local life = math.max(0, soft - math.floor(start / 1000))
local target = math.floor(hard + arg[1] * life + arg[2])
if arg[3] == '1' then
  local at = redis.call('PEXPIRETIME', key)
  if at > 0 and target > at then return 1 end
  return 0
end
return redis.pcall('PEXPIREAT', key, string.format('%d', target), 'GT')`)

// restoreScript moves the physical end of one entry back to its own end. Entries that are past it get a little time,
// so that the undo does not send all their readers to the origin at once.
// Arguments: ms for entries past their end, 1 to only count.
var restoreScript = newTTLScript(headOf + `
local hard = struct.unpack('>I8', h, 33)
local left = redis.call('PTTL', key)
if left <= 0 then return 0 end
local t = redis.call('TIME')
local want = hard - (t[1] * 1000 + math.floor(t[2] / 1000))
if want <= 0 then want = tonumber(arg[1]) end
if want >= left then return 0 end
if arg[2] == '1' then return 1 end
return redis.pcall('PEXPIRE', key, string.format('%d', want))`)
