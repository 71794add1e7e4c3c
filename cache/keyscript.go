package cache

import (
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// keyScript acts on keys. It is two scripts: one for a single key, which goes through the client that follows slots, and one
// for many keys of a master. To the master of a cluster the second names no keys, so that they need not be of one slot; a key
// that it has not, or not any more, or where anything else is in the way, is refused and left to the first.
type keyScript struct {
	one, many *redis.Script
}

// newKeyScript takes how many arguments keys share, what is done with them once, in Lua that has the time in microseconds as now;
// how many are a key's own, and the body of a function of key and of those, which come in `...`. It raises or returns an error
// where it fails, and no nil.
func newKeyScript(shared int, once string, own int, body string) keyScript {
	function := `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]` + once + `local function act(key, ...)` + body + "end\n"
	args := func(from string) string {
		var list strings.Builder
		for i := range own {
			list.WriteString(", ARGV[" + from + strconv.Itoa(i) + "]")
		}
		return list.String()
	}
	return keyScript{
		// KEYS: entry. ARGV: the shared arguments, and its own ones.
		one: redis.NewScript(function + `return act(KEYS[1]` + args(strconv.Itoa(shared+1)+" + ") + `)`),
		// KEYS: entries, or none. ARGV: the shared arguments, and for each entry its key, where KEYS has none, and its own ones. It
		// returns what the function did for each, or nil where it failed: no errors, which clients do not take in lists.
		many: redis.NewScript(function + `
local named, n, step, answers = #KEYS > 0, 0, ` + strconv.Itoa(own) + `, {}
if not named then step = step + 1 end
for at = ` + strconv.Itoa(shared+1) + `, #ARGV, step do
  n = n + 1
  local key = KEYS[n]
  if not named then key, at = ARGV[at], at + 1 end
  local ok, answer = pcall(act, key` + args("at + ") + `)
  answers[n] = ok and not (type(answer) == 'table' and answer.err) and answer
end
return answers`),
	}
}
