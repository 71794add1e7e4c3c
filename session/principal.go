package session

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Of each principal Redis has two keys in one slot, for as long as a session of theirs may last: the generation of their
// log-ins, and their devices, a hash.
//
// A session holds the generation in which it began, and counts only while that is the present one. Generations are random:
// one that a failover has lost is never given out again. A key that is gone ends the sessions, it revives none.

// revokedMark stands in generations that began with a revocation, before its time in microseconds of Redis's clock. A
// session that knows of no generation, because it began in another store, counts unless there was one.
const revokedMark = "!"

// enrolScript enters a device. KEYS: generation, devices. ARGV: a generation if there is none yet, milliseconds to live,
// the device, what is told of it, and the generation that the session must be of, empty for any. It returns the
// generation, the number of devices, and the time; nothing for a session of another generation.
var enrolScript = redis.NewScript(`
local t = redis.call('TIME')
local g = redis.call('GET', KEYS[1])
if ARGV[5] ~= '' and g ~= ARGV[5] then return {} end
if not g then
	g = ARGV[1]
	redis.call('SET', KEYS[1], g)
end
redis.call('HSET', KEYS[2], ARGV[3], string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)) .. ' ' .. ARGV[4])
for _, key in ipairs(KEYS) do
	if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
end
return {g, redis.call('HLEN', KEYS[2]), t[1], t[2]}`)

// revokeScript begins another generation. KEYS: generation, devices. ARGV: the generation without its time, milliseconds
// to live, channel, message. It returns the generation and the devices, which stay listed until the answer has come: a client that
// has lost it sends the script again. A full Redis refuses what may need room, unless the script has written before.
var revokeScript = redis.NewScript(`
redis.call('HDEL', KEYS[2], '')
local t = redis.call('TIME')
local was = redis.call('HGETALL', KEYS[2])
local ttl = math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2]))
local g = ARGV[1] .. string.format('%.0f', t[1] * 1000000 + t[2])
redis.call('SET', KEYS[1], g, 'PX', string.format('%.0f', ttl))
redis.pcall('PUBLISH', ARGV[3], ARGV[4])
return {g, was}`)

// dropScript takes devices out of a list. KEYS: devices. ARGV: ids, each with what it is to have. It returns how many have
// something else.
var dropScript = redis.NewScript(`
local others = 0
for i = 1, #ARGV, 2 do
	local now = redis.call('HGET', KEYS[1], ARGV[i])
	if now == ARGV[i + 1] then
		redis.call('HDEL', KEYS[1], ARGV[i])
	elseif now then
		others = others + 1
	end
end
return others`)

// principals keeps what is known of who is logged in where.
type principals struct {
	store *Store
	cache generations
}

// keys have braces first: under the sessions' prefix scs/redisstore takes each key for a session.
func (p *principals) keys(principal string) []string {
	slot := "{" + p.store.opts.Prefix + "principal:" + hash(principal) + "}"
	return []string{slot + ":generation", slot + ":devices"}
}

// enrolment is what enrol is told of a session.
type enrolment struct {
	principal, device string
	generation        string // that it must be of, empty for a log-in
	entry             entry
	life              time.Duration
	began             time.Time // the request of a log-in
}

// enrol enters a session and returns its generation, or ErrRevoked.
func (p *principals) enrol(ctx context.Context, e enrolment) (string, error) {
	ctx, cancel := detached(ctx, p.store.opts.StoreTimeout)
	defer cancel()
	text, err := json.Marshal(e.entry)
	if err != nil {
		return "", err
	}
	asked := p.cache.now()
	reply, err := enrolScript.Run(ctx, p.store.rdb, p.keys(e.principal),
		rand.Text(), e.life.Milliseconds()+1, e.device, text, e.generation).Slice()
	if err != nil {
		return "", p.store.failed("enrol", err)
	}
	if len(reply) != 4 {
		p.store.count("enrol", "revoked")
		return "", ErrRevoked
	}
	generation, _ := reply[0].(string)
	// The request began this long before the answer came, so even longer before the script looked at its clock.
	if e.generation == "" && !microseconds(reply[2], reply[3]).Add(-time.Since(e.began)).After(revokedAt(generation)) {
		p.store.count("enrol", "revoked")
		if err := p.store.rdb.HDel(ctx, p.keys(e.principal)[1], e.device).Err(); err != nil {
			return "", errors.Join(ErrRevoked, p.store.failed("devices", err))
		}
		return "", ErrRevoked
	}
	p.store.count("enrol", "ok")
	p.cache.put(hash(e.principal), generation, asked)
	if devices, _ := reply[1].(int64); devices > maxDevices {
		if _, err := p.devices(ctx, e.principal); err != nil {
			p.store.opts.Logger.WarnContext(ctx, "session: a long list of devices is not cleaned", "error", err)
		}
	}
	return generation, nil
}

// microseconds is what Redis's TIME means.
func microseconds(seconds, micros any) time.Time {
	s, _ := seconds.(string)
	us, _ := micros.(string)
	whole, _ := strconv.ParseInt(s, 10, 64)
	part, _ := strconv.ParseInt(us, 10, 64)
	return time.UnixMicro(whole*1e6 + part)
}

// revokedAt is when a generation began with a revocation, long ago if with none.
func revokedAt(generation string) time.Time {
	_, at, _ := strings.Cut(generation, revokedMark)
	us, _ := strconv.ParseInt(at, 10, 64)
	return time.UnixMicro(us)
}

// valid reports whether a session of a principal still counts. Where Redis was asked it also reports whether the device is
// in the principal's list.
func (p *principals) valid(ctx context.Context, principal, generation, device string) (valid, listed bool, err error) {
	if !p.store.opts.Strict {
		if current, ok := p.cache.get(hash(principal)); ok && counts(current, generation) {
			return true, true, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.store.opts.StoreTimeout)
	defer cancel()
	asked, keys := p.cache.now(), p.keys(principal)
	var current *redis.Cmd
	var has *redis.BoolCmd
	_, err = p.store.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		current = pipe.Do(ctx, "getex", keys[0]) // as Store.get does
		if !p.store.opts.Strict {
			has = pipe.HExists(ctx, keys[1], device)
		}
		return nil
	})
	text, err := current.Text()
	if err != nil && !errors.Is(err, redis.Nil) {
		return false, false, p.store.failed("generation", err)
	}
	p.store.count("generation", "ok")
	p.cache.put(hash(principal), text, asked)
	return counts(text, generation), device == "" || has == nil || has.Err() != nil || has.Val(), nil
}

// counts decides. current is empty when nothing is known of the principal.
func counts(current, generation string) bool {
	if generation == "" {
		return !strings.Contains(current, revokedMark)
	}
	return current == generation
}
