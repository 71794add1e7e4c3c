package cache

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// epoch counts the invalidations of many keys, by a clock of Redis's that all processes share and that never goes back.
// A fill notes the epoch that it began in; an invalidation has a later one, so what was filled from before it is told
// by its number, with no clock of any process involved.
type epoch uint64

// tickScript moves the clock on. It survives the loss of the key and the clocks of servers: whoever asks brings the last
// value that it knows. When the key is lost, it does nothing and returns nothing, unless the caller has tried to find out
// what it showed. KEYS: clock. ARGV: the last value known, 1 when the caller has tried.
var tickScript = redis.NewScript(`
local t, shows = redis.call('TIME'), redis.call('GET', KEYS[1])
if not shows and ARGV[2] ~= '1' then return '' end
local now = math.max(t[1] * 1000000 + t[2], tonumber(shows or 0) + 1, ARGV[1] + 1)
local text = string.format('%.0f', now)
redis.call('PERSIST', KEYS[1]) -- for a server that is full
redis.call('SET', KEYS[1], text)
return text`)

// raiseClockScript makes the clock show what somebody has seen it show. KEYS: clock. ARGV: that.
var raiseClockScript = redis.NewScript(`
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
  redis.call('PERSIST', KEYS[1]) -- for a server that is full
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1`)

// clock is what a process knows of the shared clock: never more than it shows.
type clock struct {
	known atomic.Uint64
	fence atomic.Uint64                // counts the news that it has moved
	read  atomic.Pointer[clockReading] // that makes known current
}

// clockReading is what held when the clock began to be read.
type clockReading struct {
	cover *cover
	fence uint64
}

func (s *Store) clockKey() string { return s.opts.Prefix + metaMark + "clock" }

func (c *clock) learn(e epoch) epoch {
	for {
		have := c.known.Load()
		if uint64(e) <= have {
			return epoch(have)
		}
		if c.known.CompareAndSwap(have, uint64(e)) {
			return e
		}
	}
}

// tick moves the clock on and returns the new epoch, which nobody else gets: two rules of one epoch would be one.
func (s *Store) tick(ctx context.Context) (epoch, error) {
	text, err := s.tickOnce(ctx, 0, 0)
	if err == nil && text == "" {
		var least epoch
		if least, err = s.recallClock(ctx); err == nil {
			text, err = s.tickOnce(ctx, least, 1)
		}
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, err
	}
	s.clock.learn(epoch(n)) // which may know a later one by now
	return epoch(n), nil
}

func (s *Store) tickOnce(ctx context.Context, least epoch, tried int) (string, error) {
	return tickScript.Run(ctx, s.rdb, []string{s.clockKey()}, max(uint64(least), s.clock.known.Load()), tried).Text()
}

// epochNow returns an epoch that is not ahead of the clock, and as near to it as can be known: a fill that begins now
// notes it. Too low a number costs a load more, never an older value. A store that does not run asks for it only where it
// would cost one each time, which is where values have tags.
func (s *Store) epochNow(ctx context.Context, tagged bool) epoch {
	if s.rdb == nil || s.clockCurrent() || !tagged && !s.runs.Load() {
		return epoch(s.clock.known.Load())
	}
	e, _ := s.readClock(ctx)
	return e
}

// clockCurrent reports whether the clock cannot have moved unheard.
func (s *Store) clockCurrent() bool { return s.clock.read.Load().current(s) }

func (r *clockReading) current(s *Store) bool {
	return r != nil && r.fence == s.clock.fence.Load() && s.coverage.holds(r.cover, s.coverage.slot(s.clockKey()), s.now())
}

func (s *Store) readClock(ctx context.Context) (epoch, error) {
	reading := &clockReading{fence: s.clock.fence.Load(), cover: s.coverage.at(s.coverage.slot(s.clockKey()), s.now())}
	var n uint64
	err := s.call(ctx, s.clockKey(), func(ctx context.Context) (err error) {
		n, err = s.rdb.Get(ctx, s.clockKey()).Uint64()
		return err
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return epoch(s.clock.known.Load()), err
	}
	e := s.clock.learn(epoch(n))
	if err != nil { // the key was lost, and others may know more, or never was
		if e, err = s.lastClock(ctx); err != nil {
			return e, err
		}
		e = max(e, 1) // so that who asks next finds a clock
	}
	if epoch(n) < e { // it was lost, and nobody has begun anew yet, or somebody who knows less
		err := s.call(ctx, s.clockKey(), func(ctx context.Context) error {
			return raiseClockScript.Run(ctx, s.rdb, []string{s.clockKey()}, uint64(e)).Err()
		})
		if err != nil {
			return epoch(s.clock.known.Load()), err
		}
		s.clock.learn(e)
	}
	for was := s.clock.read.Load(); !was.current(s); was = s.clock.read.Load() { // a slower one changes nothing of it
		if s.clock.read.CompareAndSwap(was, reading) {
			break
		}
	}
	return e, nil
}

// followClock reads the clock if that is due: news of it may have come while its master could not be asked.
func (s *Store) followClock(ctx context.Context) error {
	if s.clockCurrent() {
		return nil
	}
	_, err := s.readClock(ctx)
	return err
}

// now is the store's own clock, which nobody sets.
func (s *Store) now() time.Duration { return time.Since(s.born) }

// nodeTime returns the clock of the node that has a slot, in Unix milliseconds: as the pushes' connection has measured
// it, or else as the last fill did, or else the process's own.
func (s *Store) nodeTime(slot uint16, now time.Duration) int64 {
	if c := s.coverage.slots[slot].Load(); c != nil {
		if ahead := c.ahead.Load(); ahead != 0 {
			return (ahead + now.Microseconds()) / 1000
		}
	}
	if ahead := s.ahead.Load(); ahead != 0 {
		return (ahead + now.Microseconds()) / 1000
	}
	return time.Now().UnixMilli()
}
