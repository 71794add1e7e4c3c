package simulate

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"sync"

	"github.com/alicebob/miniredis/v2/server"
)

// lua gives miniredis what it lacks: the struct library of Redis's Lua, CLIENT TRACKING, of which only the consent is
// here, HELLO without a version, and an INFO that says how memory is kept.
type lua struct {
	server *server.Server

	mu      sync.Mutex
	scripts map[string]string // by the digest of what the client sent
}

func newLua(s *server.Server) *lua { return &lua{server: s, scripts: map[string]string{}} }

// structLibrary is as much of struct as our scripts use: big-endian unsigned integers and strings of a given length.
const structLibrary = `local struct = {}
function struct.pack(format, ...)
  local out, n = '', 0
  for size in string.gmatch(format, 'I(%d)') do
    n = n + 1
    local value, text = tonumber((select(n, ...))), ''
    for _ = 1, tonumber(size) do
      text = string.char(value % 256) .. text
      value = math.floor(value / 256)
    end
    out = out .. text
  end
  return out
end
function struct.unpack(format, text, at)
  local out = {}
  at = at or 1
  for kind, size in string.gmatch(format, '([cI])(%d)') do
    local part = string.sub(text, at, at + size - 1)
    if #part < tonumber(size) then error('data string too short') end
    at = at + size
    if kind == 'I' then
      local value = 0
      for i = 1, #part do value = value * 256 + string.byte(part, i) end
      part = value
    end
    out[#out + 1] = part
  end
  out[#out + 1] = at
  return unpack(out)
end
`

// hook sees each command before miniredis does.
func (l *lua) hook(c *server.Peer, cmd string, args ...string) bool {
	switch {
	case cmd == "CLIENT" && len(args) > 0 && strings.EqualFold(args[0], "tracking"):
		c.WriteOK()
		return true
	case cmd == "HELLO" && len(args) == 0:
		c.WriteMapLen(1)
		c.WriteBulk("role")
		c.WriteBulk("master")
		return true
	case cmd == "INFO":
		c.WriteBulk("# Memory\r\nused_memory:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n")
		return true
	case cmd == "EVAL" && strings.Contains(args[0], "struct.") && !strings.HasPrefix(args[0], structLibrary):
		digest := sha1.Sum([]byte(args[0]))
		script := structLibrary + args[0]
		l.mu.Lock()
		l.scripts[hex.EncodeToString(digest[:])] = script
		l.mu.Unlock()
		l.server.Dispatch(c, append([]string{"EVAL", script}, args[1:]...))
		return true
	case cmd == "EVALSHA":
		l.mu.Lock()
		script := l.scripts[args[0]]
		l.mu.Unlock()
		if script == "" {
			return false
		}
		l.server.Dispatch(c, append([]string{"EVAL", script}, args[1:]...))
		return true
	}
	return false
}
