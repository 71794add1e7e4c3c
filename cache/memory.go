package cache

import (
	"cmp"
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// The rules and the clock may be lost: evicted, or emptied with their master. Processes that run know what they were and
// put them back. For when nobody does, a key of its own, mostly on another master, says that there were rules, and how far
// the clock was at most.

// memorySlack is how far the clock may have moved since processes that run last wrote down how far it was.
const memorySlack = 2 * reclaimEvery

func (s *Store) memoryKey() string { return s.opts.Prefix + metaMark + "memory" }

// noteScript writes down the clock, which is never ahead of this and the server's own for long, and the rules.
// KEYS: memory. ARGV: the clock, how many rules there were, since when.
var noteScript = redis.NewScript(`
local t, was = redis.call('TIME'), redis.call('HMGET', KEYS[1], 'clock', 'rules')
local clock = math.max(t[1] * 1000000 + t[2], tonumber(was[1] or 0), tonumber(ARGV[1]))
redis.call('HDEL', KEYS[1], '') -- for a server that is full
redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', clock), 'rules', math.max(tonumber(was[2] or 0), tonumber(ARGV[2])))
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'since', ARGV[3]) end
return 1`)

// memory is what the key says.
type memory struct {
	clock epoch
	rules int64
	since string
}

func (s *Store) note(ctx context.Context, m memory) error {
	return s.aside(ctx, s.memoryKey(), func(ctx context.Context) error {
		return noteScript.Run(ctx, s.rdb, []string{s.memoryKey()}, uint64(m.clock), m.rules, m.since).Err()
	})
}

// noteRules writes down the rules that there are by the answer of ruleScript or mendScript.
func (s *Store) noteRules(ctx context.Context, e epoch, reply []any) error {
	m := memory{clock: e}
	if len(reply) == 2 {
		m.rules, _ = reply[0].(int64)
		m.since, _ = reply[1].(string)
	}
	return s.note(ctx, m)
}

// noteAll writes down what this process knows, which also keeps it from being evicted for not being used.
func (s *Store) noteAll(ctx context.Context) error {
	rules, known := s.rules.Load(), s.clock.known.Load()
	if rules.unsure() || known == 0 {
		return nil
	}
	return s.note(ctx, memory{epoch(known), rules.count, rules.since})
}

func (s *Store) remember(ctx context.Context) (m memory, err error) {
	var fields map[string]string
	err = s.call(ctx, s.memoryKey(), func(ctx context.Context) (err error) {
		fields, err = s.rdb.HGetAll(ctx, s.memoryKey()).Result()
		return err
	})
	if err != nil {
		return memory{}, err
	}
	clock, _ := strconv.ParseUint(fields["clock"], 10, 64)
	m.clock, m.since = epoch(clock), fields["since"]
	m.rules, _ = strconv.ParseInt(fields["rules"], 10, 64)
	return m, nil
}

// recallClock returns how far the clock may have been that is lost.
func (s *Store) recallClock(ctx context.Context) (epoch, error) {
	m, err := s.remember(ctx)
	if err != nil {
		return 0, err
	}
	if m.clock > 0 {
		m.clock += epoch(memorySlack / time.Microsecond)
	}
	_, err = s.readRules(ctx) // which learns theirs
	return m.clock, err
}

// lastClock is recallClock for who only reads the clock, within Options.RedisTimeout. It goes by what the process knows, too.
func (s *Store) lastClock(ctx context.Context) (epoch, error) {
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	least, err := s.recallClock(rctx)
	known := epoch(s.clock.known.Load())
	if err != nil {
		return known, err
	}
	return max(least, known), nil
}

// mendScript puts rules back that were lost. Those that were made meanwhile stand beside them: then both go on as the older
// ones, by a name that all who know either agree on, and count together. It returns how many there ever were, and since when.
// KEYS: rules. ARGV: since when they are, how many there were, and the fields.
var mendScript = redis.NewScript(mergeFloors + `
local was = redis.call('HMGET', KEYS[1], 'since', 'count')
local since, count, changed = was[1] or ARGV[1], tonumber(was[2] or 0), false
if was[1] == ARGV[1] and count >= tonumber(ARGV[2]) then return {count, since} end
redis.call('HDEL', KEYS[1], '') -- for a server that is full
for i = 3, #ARGV, 2 do
  if string.sub(ARGV[i], 1, 6) == 'floor:' then
    local stands = redis.call('HGET', KEYS[1], ARGV[i]) or ''
    local floor = merge(ARGV[i + 1], stands)
    if #floor > 16 and floor ~= stands then
      redis.call('HSET', KEYS[1], ARGV[i], floor)
      changed = true
    end
  elseif redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    changed = true
  end
end
if since == ARGV[1] then
  count = math.max(count, tonumber(ARGV[2]))
elseif changed or tonumber(ARGV[1]) < tonumber(since) then
  count = count + ARGV[2]
  if tonumber(ARGV[1]) < tonumber(since) then since = ARGV[1] end
else
  return {count, since}
end
redis.call('HSET', KEYS[1], 'since', since, 'count', count)
return {count, since}`)

// mendRules puts rules back that were lost: absent, others than before, or fewer than there were. Where this process does
// not know all that there were, a rule for everything takes their place. A process that knows none yet goes by what it
// remembered before it read them.
func (s *Store) mendRules(ctx context.Context, was, next *rules, m memory) (mended bool, err error) {
	count, since := m.rules, m.since
	if was != nil {
		count, since = was.count, was.since
	}
	if next.count >= count && (since == "" || next.since == since) {
		return false, nil
	}
	if was != nil {
		if m, err = s.remember(ctx); err != nil {
			return false, err
		}
	}
	lost := memory{clock: epoch(s.clock.known.Load()), rules: m.rules, since: m.since}
	var fields []any
	if was != nil {
		for _, f := range was.floors {
			fields = append(fields, floorField+f.pattern, f.text)
		}
	}
	others := next.since == m.since && next.count >= m.rules // all that are remembered are there
	if was != nil && (was.count >= m.rules || others) {
		lost.rules, lost.since = was.count, cmp.Or(was.since, m.since)
		for _, r := range was.list {
			fields = append(fields, uint64(r.epoch), r.pattern)
		}
	} else {
		if lost.clock, err = s.tick(ctx); err != nil {
			return false, err
		}
		lost.rules++
		fields = append(fields, uint64(lost.clock), "*")
	}
	lost.since = cmp.Or(lost.since, strconv.FormatUint(uint64(lost.clock), 10))
	s.opts.Logger.WarnContext(ctx, "cache: Redis has lost invalidations that were under way, they are put back", "prefix", s.opts.Prefix)
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	changed := s.changing(ctx, s.rulesKey())
	args := append([]any{lost.since, lost.rules}, fields...)
	reply, err := mendScript.Run(ctx, s.rdb, []string{s.rulesKey()}, args...).Slice()
	if err := changed(err); err != nil {
		return false, err
	}
	return true, s.noteRules(ctx, lost.clock, reply)
}
