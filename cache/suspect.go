package cache

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A TTL that moves is news like any other: Redis does not say what has changed. While a TTL extension runs, what is kept
// in the process is therefore put in doubt by news, and looked at again in batches, instead of being dropped: a value
// that is still the same stays, with its new end. Until then look-ups go to Redis.

const suspectBatch = 256

type suspect struct {
	view *viewState
	id   string
}

// suspects are the entries to be looked at again, of each view as many at most as it may keep.
type suspects struct {
	mu    sync.Mutex
	queue map[suspect]struct{}
	of    map[*viewState]int
	more  bell
}

func newSuspects() suspects {
	return suspects{queue: make(map[suspect]struct{}), of: make(map[*viewState]int), more: newBell()}
}

// add reports whether there is room for one more.
func (q *suspects) add(d suspect) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, queued := q.queue[d]; queued {
		return true
	}
	if q.of[d.view] >= d.view.opts.local.withDefaults().Entries {
		return false
	}
	q.queue[d] = struct{}{}
	q.of[d.view]++
	q.more.ring()
	return true
}

// take moves some to batch.
func (q *suspects) take(batch []suspect) []suspect {
	q.mu.Lock()
	defer q.mu.Unlock()
	for d := range q.queue {
		if len(batch) == cap(batch) {
			break
		}
		batch = append(batch, d)
		delete(q.queue, d)
		if q.of[d.view]--; q.of[d.view] == 0 {
			delete(q.of, d.view)
		}
	}
	if len(q.queue) == 0 && len(batch) > 0 {
		q.queue = make(map[suspect]struct{}) // a map keeps the room that it once needed
	}
	return batch
}

// sweeping reports whether a TTL extension is under way somewhere.
func (s *Store) sweeping() bool { return int64(s.now()) < s.sweepTill.Load() }

// doubt queues an entry to be looked at again; false means that the queue is full, so drop it.
func (s *Store) doubt(v *viewState, id string) bool { return s.suspects.add(suspect{v, id}) }

func (s *Store) runSuspects(ctx context.Context) {
	batch := make([]suspect, 0, suspectBatch)
	for ctx.Err() == nil {
		if batch = s.suspects.take(batch[:0]); len(batch) > 0 {
			s.acquit(ctx, batch)
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.suspects.more:
		}
	}
}

// acquit looks at the headers of entries again.
func (s *Store) acquit(ctx context.Context, batch []suspect) {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	pipe := s.rdb.Pipeline()
	gets := make([]*redis.StringCmd, len(batch))
	ttls := make([]*redis.DurationCmd, len(batch))
	judge := make([]func(raw []byte, ttl time.Duration, ok bool), len(batch))
	for i, d := range batch {
		judge[i] = d.view.reconsider(d.id)
		gets[i] = pipe.GetRange(ctx, d.view.prefix+d.id, 0, headerSize-1)
		ttls[i] = pipe.PTTL(ctx, d.view.prefix+d.id)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i := range batch {
		raw, err := gets[i].Bytes()
		judge[i](raw, ttls[i].Val(), err == nil)
	}
}

// sweepingKey is there while TTLs are moved.
func (s *Store) sweepingKey() string { return s.opts.Prefix + metaMark + "sweeping" }

const (
	sweepingLife = 3 * time.Second
	// sweepingAhead is how long before the first TTL moves all processes are told. Who hears of it later drops what it
	// keeps, which is as right.
	sweepingAhead = 50 * time.Millisecond
)

// moveTTLs tells all processes that TTLs move, until done is called.
func (s *Store) moveTTLs(ctx context.Context) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	tell := func() error {
		tctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
		defer cancel()
		return s.rdb.Set(tctx, s.sweepingKey(), "1", sweepingLife).Err()
	}
	if err := tell(); err != nil {
		s.in.failed(ctx, "sweeping", err) // then what is kept is dropped
	}
	s.sweepTill.Store(int64(s.now() + sweepingLife))
	_ = sleep(ctx, sweepingAhead)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for sleep(ctx, sweepingLife/3) == nil {
			if tell() == nil {
				s.sweepTill.Store(int64(s.now() + sweepingLife))
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// noteSweeping learns how long TTLs move at least.
func (s *Store) noteSweeping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	left, err := s.rdb.PTTL(ctx, s.sweepingKey()).Result()
	if err != nil {
		return err
	}
	if left > 0 {
		s.sweepTill.Store(int64(s.now() + left))
	}
	return nil
}
