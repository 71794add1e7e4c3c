package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A sweep unlinks many keys with one command and looks into none of them. So that it does not take away what deletes by
// callers who wrote ask for, a mark says whether there may be such leases. While there may, it asks a script to spare them. The
// mark outlives them by far: a sweep that has looked for it just before it is left for the first time does take away a lease
// that is left meanwhile.

const (
	leaseMark     = "leases"
	leaseMarkLife = 24 * time.Hour
	// leaseMarkEvery is how often a process that is told of changes looks for the mark, at most.
	leaseMarkEvery = time.Hour
	// leaseMarkUntold is that where servers do not tell by themselves that they have lost it.
	leaseMarkUntold = 10 * time.Second
)

// leaseMarkScript leaves the mark where there is none that lasts. All processes are told of that, so it does nothing else. KEYS:
// mark. ARGV: its TTL in ms.
var leaseMarkScript = redis.NewScript(`
if redis.call('PTTL', KEYS[1]) < ARGV[1] / 2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1]) -- for a server that is full
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 1`)

// leaseMarks is what a process knows of the mark.
type leaseMarks struct {
	wanted atomic.Int64  // when it last left leases that need it, by the store's clock; 0 for never
	fence  atomic.Uint64 // counts the news of it
	left   atomic.Pointer[leaseMarking]
}

// leaseMarking is what held when the mark was left.
type leaseMarking struct {
	at    time.Duration
	cover *cover
	fence uint64
}

func (s *Store) leaseMarkKey() string { return s.opts.Prefix + metaMark + leaseMark }

// stands reports whether the mark cannot have been lost unheard.
func (m *leaseMarking) stands(s *Store, slot uint16, now time.Duration) bool {
	if m == nil || m.fence != s.leaseMarks.fence.Load() || !s.coverage.holds(m.cover, slot, now) {
		return false
	}
	every := leaseMarkEvery
	if s.untracked.Load() || m.cover.addr == publishedAddr {
		every = leaseMarkUntold
	}
	return now-m.at < every
}

// markLeases says that there will be leases with a floor. A store that runs does so later when it cannot now; till then sweeps
// find no mark only on a server that has come back without it.
func (s *Store) markLeases(ctx context.Context) {
	s.leaseMarks.wanted.Store(int64(s.now()))
	if err := s.keepLeaseMark(ctx); err != nil {
		s.in.failed(ctx, "floor", err)
	}
}

// keepLeaseMark sees to it that the mark stands while this process has left leases that need it.
func (s *Store) keepLeaseMark(ctx context.Context) error {
	now, wanted, key := s.now(), s.leaseMarks.wanted.Load(), s.leaseMarkKey()
	slot := s.coverage.slot(key)
	if wanted == 0 || int64(now)-wanted > int64(floorTTL+s.leaseTTL()) || s.leaseMarks.left.Load().stands(s, slot, now) {
		return nil
	}
	left := &leaseMarking{now, s.coverage.at(slot, now), s.leaseMarks.fence.Load()}
	err := s.aside(ctx, key, func(ctx context.Context) error {
		return leaseMarkScript.Run(ctx, s.rdb, []string{key}, leaseMarkLife.Milliseconds()).Err()
	})
	if err == nil {
		s.leaseMarks.left.Store(left)
	}
	return err
}

// mayHaveLeases reports whether there may be leases with a floor.
func (s *Store) mayHaveLeases(ctx context.Context) bool {
	err := s.call(ctx, s.leaseMarkKey(), func(ctx context.Context) error { return s.rdb.Get(ctx, s.leaseMarkKey()).Err() })
	return !errors.Is(err, redis.Nil)
}
