package cache

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// floorTTL is for how long after a Delete, Invalidate or InvalidateTags by a caller who wrote nothing is stored, nor served,
// that is known to be older than what the caller wrote: longer than replicas lag that anybody reads from.
const floorTTL = time.Minute

// maxFloors is how many patterns may have a floor before one for everything takes their place, which is as high as the
// highest of them.
const maxFloors = 64

const (
	floorField = "floor:" // and the pattern, in the rules
	floorMark  = metaMark + "floor:"
	floorSize  = 16
)

// floor is what an invalidation of many keys asks of the age of what it names. Times are the node's, Unix milliseconds.
type floor struct {
	tokens  scaleaware.Tokens // known ones
	ageless int64             // until when loads of unknown age are refused
	until   int64
	text    string // as it is stored: both times (8 each), then the tokens as in a header
}

// patternFloor is one that stands among the rules.
type patternFloor struct {
	pattern string
	floor
}

func parseFloor(text string) (f floor, ok bool) {
	raw := []byte(text)
	if len(raw) <= floorSize || len(raw) > floorSize+maxTokens*tokenSize || (len(raw)-floorSize)%tokenSize != 0 {
		return floor{}, false
	}
	f = floor{ageless: int64(binary.BigEndian.Uint64(raw)), until: int64(binary.BigEndian.Uint64(raw[8:])), text: text}
	f.tokens, _, ok = parseTokens(raw[floorSize:], byte((len(raw)-floorSize)/tokenSize), false)
	return f, ok
}

// overtakes reports whether a value is known to be older than the floor. Databases that it was not read from do not matter.
func (f *floor) overtakes(asOf scaleaware.Tokens, now int64) bool {
	if f == nil || now >= f.until {
		return false
	}
	for _, want := range f.tokens {
		have := asOf.For(want.System)
		if !have.IsZero() && (have.Timeline < want.Timeline || have.Timeline == want.Timeline && have.LSN < want.LSN) {
			return true
		}
	}
	return false
}

// refuses reports whether a load may not be stored. What Set stores has no age, too, and is served, so one that has none is
// only refused when it is to be stored.
func (f *floor) refuses(asOf scaleaware.Tokens, now int64) bool {
	if f != nil && len(asOf) == 0 {
		return now < f.ageless
	}
	return f.overtakes(asOf, now)
}

// overtakes reports whether an entry is older than what somebody wrote who has invalidated it.
func (r *rules) overtakes(s *Store, asOf scaleaware.Tokens, view, id string) bool {
	if len(asOf) == 0 {
		return false
	}
	return r.anyFloor(s, view+":", id, func(f *floor, now int64) bool { return f.overtakes(asOf, now) })
}

// refuses is overtakes for a load that is to be stored.
func (r *rules) refuses(s *Store, asOf scaleaware.Tokens, view, id string) bool {
	return r.anyFloor(s, view+":", id, func(f *floor, now int64) bool { return f.refuses(asOf, now) })
}

func (r *rules) anyFloor(s *Store, view, id string, is func(f *floor, now int64) bool) bool {
	if r == nil || len(r.floors) == 0 {
		return false
	}
	now := s.nodeTime(r.slot, s.now())
	for i := range r.floors {
		if f := &r.floors[i]; is(&f.floor, now) && globMatch(f.pattern, view+id) {
			return true
		}
	}
	return false
}

// floorOf is what a load of a key must have seen to be stored, as far as the rules say.
func (r *rules) floorOf(s *Store, key string) (need scaleaware.Tokens) {
	name := strings.TrimPrefix(key, s.opts.Prefix)
	if r == nil || len(r.floors) == 0 {
		return nil
	}
	now := s.nodeTime(r.slot, s.now())
	for i := range r.floors {
		if f := &r.floors[i]; now < f.until && globMatch(f.pattern, name) {
			need = need.Merge(f.tokens)
		}
	}
	return need
}

// written is what the caller of ctx has written, as far as it can be known.
func written(ctx context.Context) scaleaware.Tokens {
	floor, _ := scaleaware.WatermarkFrom(ctx).Written(ctx)
	return known(floor)
}

// floorTimes returns, in ms, for how long floors refuse loads of unknown age, and others.
func (s *Store) floorTimes() (ageless, aged int64) {
	return s.leaseTTL().Milliseconds(), max(floorTTL, s.leaseTTL()).Milliseconds()
}

// floorArgs are the arguments of the scripts that raise floors: tokens, and the floor's times.
func (s *Store) floorArgs(tokens scaleaware.Tokens) []any {
	ageless, aged := s.floorTimes()
	return []any{appendTokens(nil, tokens[:min(len(tokens), maxTokens)]), ageless, aged}
}

// endedFloor is the part of scripts that tells whether a floor has ended.
const endedFloor = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function ended(floor)
  return #floor <= 16 or struct.unpack('>I8', floor, 9) <= now
end
`

// mergeFloors is the part of the scripts that makes one floor of two: each of the positions and times is the higher one.
// One that has ended, or is empty, adds nothing.
const mergeFloors = endedFloor + `
local function merge(was, new)
  local ageless, till, tokens, order = 0, 0, {}, {}
  for _, floor in ipairs({new, was}) do
    if not ended(floor) then
      local a, u = struct.unpack('>I8I8', floor)
      ageless, till = math.max(ageless, a), math.max(till, u)
      for at = 17, #floor, 20 do
        local system, tl, hi, lo = struct.unpack('>c8I4I4I4', floor, at)
        local have = tokens[system]
        if not have and #order < 4 then order[#order + 1] = system end
        if not have or tl > have.tl or (tl == have.tl and (hi > have.hi or (hi == have.hi and lo > have.lo))) then
          tokens[system] = {tl = tl, hi = hi, lo = lo, text = string.sub(floor, at, at + 19)}
        end
      end
    end
  end
  local text = struct.pack('>I8I8', ageless, till)
  for _, system in ipairs(order) do text = text .. tokens[system].text end
  return text
end
`

// ruleScript adds a rule, in the place of earlier ones of its pattern, and what it asks of the age of later loads. Older versions
// leave out fields that are no epochs. It returns how many rules there ever were, and since when. KEYS: rules. ARGV: epoch,
// pattern, and for one who wrote as floorArgs, and how many floors there may be.
var ruleScript = redis.NewScript(mergeFloors + `
local fields = redis.call('HGETALL', KEYS[1])
redis.call('HDEL', KEYS[1], '') -- for a server that is full
redis.call('HSETNX', KEYS[1], 'since', ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for i = 1, #fields, 2 do
  local e = tonumber(fields[i])
  if e and e < tonumber(ARGV[1]) and fields[i + 1] == ARGV[2] then redis.call('HDEL', KEYS[1], fields[i]) end
end
if ARGV[3] then
  local new = struct.pack('>I8I8', now + ARGV[4], now + ARGV[5]) .. ARGV[3]
  local field = 'floor:' .. ARGV[2]
  local floors, all = {}, new
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 6) == 'floor:' and fields[i] ~= field then
      if ended(fields[i + 1]) then
        redis.call('HDEL', KEYS[1], fields[i])
      else
        floors[#floors + 1] = fields[i]
        all = merge(fields[i + 1], all)
      end
    end
  end
  if #floors >= tonumber(ARGV[6]) then
    redis.call('HDEL', KEYS[1], unpack(floors))
    field, new = 'floor:*', all
  end
  redis.call('HSET', KEYS[1], field, merge(redis.call('HGET', KEYS[1], field) or '', new))
end
return {redis.call('HINCRBY', KEYS[1], 'count', 1), redis.call('HGET', KEYS[1], 'since')}`)

// tagFloorScript raises a tag's floor. KEYS: the tag's floor. ARGV: as floorArgs.
var tagFloorScript = redis.NewScript(mergeFloors + `
local new = struct.pack('>I8I8', now + ARGV[2], now + ARGV[3]) .. ARGV[1]
redis.call('PERSIST', KEYS[1]) -- for a server that is full
redis.call('SET', KEYS[1], merge(redis.call('GET', KEYS[1]) or '', new), 'PX', ARGV[3])
return 1`)

// tagFloorKey lies in the slot of the tag's own key. Older versions know the one only.
func (s *Store) tagFloorKey(tag tagHash) string {
	return s.opts.Prefix + floorMark + "{" + s.tagKey(tag) + "}"
}

// endFloorsScript takes away floors of patterns that have ended. KEYS: rules.
var endFloorsScript = redis.NewScript(endedFloor + `
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 6) == 'floor:' and ended(fields[i + 1]) then redis.call('HDEL', KEYS[1], fields[i]) end
end
return 1`)

// endFloors takes away those that have ended.
func (s *Store) endFloors(ctx context.Context) error {
	rules, now := s.rules.Load(), s.nodeTime(s.coverage.slot(s.rulesKey()), s.now())
	ended := false
	for i := range rules.floors {
		ended = ended || rules.floors[i].until <= now
	}
	if !ended {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	changed := s.changing(ctx, s.rulesKey())
	return changed(endFloorsScript.Run(ctx, s.rdb, []string{s.rulesKey()}).Err())
}

// carriedFloor is the part of scripts that says what an entry that is removed asks of later loads, if it is a lease with a floor, or
// a value whose load may have landed on one: one that began no longer ago than a floor stands. It returns how many as-of
// tokens it has, them, both times when they end, and in ms for how long their lease lasts, or nil. A start that lies ahead is
// of a server whose clock was, before a failover.
const carriedFloor = wholeHeader + `
local function carried(key, h, now, ageless, aged)
  local have = tokensOf(h) or 0
  if have == 0 then return nil end
  local floor = string.sub(h, 73, 72 + have * 20)
  if string.sub(h, 3, 3) == 'L' then
    local left = redis.call('PTTL', key)
    return have, floor, string.sub(h, 25, 40), left > 0 and left or aged
  end
  local start = math.min(math.floor(struct.unpack('>I8', h, 17) / 1000), now)
  if start + aged <= now then return nil end
  return have, floor, struct.pack('>I8I8', start + ageless, 0), start + aged - now
end
`

// spareScript unlinks keys but for leases with a floor, which no fill from before lands on any more. Such a lease takes the
// place of values whose loads may have landed on one. It returns how many values it has removed. KEYS: entries of one slot.
// ARGV: a generation, and in ms for how long loads of unknown age are refused, and others.
var spareScript = redis.NewScript(carriedFloor + freshGeneration + `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local n = 0
for _, key in ipairs(KEYS) do
  local h = redis.pcall('GETRANGE', key, '0', '151')
  local have, floor, ends, left = carried(key, h, now, ARGV[2], ARGV[3])
  if have then
    n = n + (string.sub(h, 3, 3) == 'L' and 0 or 1)
    redis.call('PEXPIRE', key, left) -- for a server that is full
    redis.call('SET', key, '\202\002L\0\0' .. struct.pack('>BI2', have, 72 + #floor) .. generation(ARGV[1], t) .. struct.pack('>I8', now * 1000)
      .. ends .. string.rep('\0', 32) .. floor, 'PX', left)
  else
    n = n + redis.call('UNLINK', key)
  end
end
return n`)
