package queue

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// reapInterval and the stall timeout bound how long a dead worker's job waits.
	reapInterval = 2 * time.Second
	// maxStalls is how often a job that takes its worker down comes back. After that it is among the failed ones: what
	// kills each worker that touches it must not go on to.
	maxStalls = 3
)

// reaper gives the jobs of dead workers to living ones. asynq's own recovery takes 70s to 142s and counts an attempt.
// A live worker extends its leases every 5s; a lease whose expiry has not moved for the stall timeout, as measured by
// this process's own clock, has no live worker. So clocks of different hosts are never compared. While Redis refuses writes, as it is
// full or without its replicas, leases do not move under living workers either: then nothing is taken, and what was observed is too old.
type reaper struct {
	f     *fetcher
	stall time.Duration
	seen  map[string]sighting
	last  time.Time
}

type sighting struct {
	score string // "" for a running job without a lease, as an evicted lease key leaves it (hibiken/asynq#1144)
	since time.Time
	asked time.Time // when it was to be reaped first, and Redis has not answered since
}

func newReaper(f *fetcher, stall time.Duration) *reaper {
	return &reaper{f: f, stall: stall, seen: make(map[string]sighting)}
}

func (r *reaper) run(ctx context.Context) {
	for sleep(ctx, reapInterval) {
		r.f.sweep(time.Now())
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.f.jobs.background("reap", err, "queue", r.f.queue.Name)
		}
	}
}

// look compares what runs with what ran at the last look.
func (r *reaper) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	r.f.doubts(r.seen) // before it reads: what is asked for later it does not see yet
	running, err := r.running(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if now.Sub(r.last) > 3*reapInterval {
		r.renew(now) // nobody could extend a lease while Redis did not answer us, or took no writes
	}
	r.last = now
	for id, s := range r.seen {
		score, ok := running[id]
		if !s.asked.IsZero() && (!ok || score != s.score) { // Redis had heard it, or another one did it
			if err := r.reap(ctx, id, s.score); err != nil {
				return err
			}
		}
		if !ok {
			delete(r.seen, id)
		}
	}
	for id, score := range running {
		s, ok := r.seen[id]
		switch {
		case !ok || s.score != score || r.f.holds(id):
			r.seen[id] = sighting{score: score, since: now}
		case now.Sub(s.since) >= r.stall:
			if err := r.reap(ctx, id, score); err != nil {
				return err
			}
		}
	}
	return nil
}

// renew forgets what was observed, except that an answer is due.
func (r *reaper) renew(now time.Time) {
	for id, s := range r.seen {
		if s.since = now; s.asked.IsZero() {
			delete(r.seen, id)
		} else {
			r.seen[id] = s
		}
	}
}

// running returns the lease expiry of every running job, "" where there is none. It fails where Redis refuses what workers write: of all
// writes a full one takes those that need no room, and asynq's extension of leases is none of them.
func (r *reaper) running(ctx context.Context) (map[string]string, error) {
	name := r.f.queue.Name
	pipe := r.f.jobs.rdb.Pipeline()
	pipe.Set(ctx, ownKey(name, "reaper"), 1, time.Minute)
	active := pipe.LRange(ctx, asynqKey(name, "active"), 0, -1)
	leases := pipe.ZRangeWithScores(ctx, asynqKey(name, "lease"), 0, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	running := make(map[string]string, len(active.Val()))
	for _, id := range active.Val() {
		running[id] = ""
	}
	for _, z := range leases.Val() {
		running[z.Member.(string)] = formatScore(z)
	}
	return running, nil
}

func formatScore(z redis.Z) string { return strconv.FormatFloat(z.Score, 'f', -1, 64) }

// reapExpired returns jobs whose lease is over, as a fleet that was down for a while finds them when it starts.
func (r *reaper) reapExpired(ctx context.Context) {
	const skew = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	over := strconv.FormatInt(time.Now().Add(-skew).Unix(), 10)
	zs, err := r.f.jobs.rdb.ZRangeByScoreWithScores(ctx, asynqKey(r.f.queue.Name, "lease"), &redis.ZRangeBy{Min: "-inf", Max: over}).Result()
	for _, z := range zs {
		if err == nil {
			err = r.reap(ctx, z.Member.(string), formatScore(z))
		}
	}
	if err != nil {
		r.f.jobs.background("reap", err, "queue", r.f.queue.Name)
	}
}

// reap is the fetcher's. A lost answer is asked for at the coming looks.
func (r *reaper) reap(ctx context.Context, id, score string) error {
	now := time.Now()
	s, ok := r.seen[id]
	if !ok || s.score != score {
		s = sighting{score: score, since: now}
	}
	if s.asked.IsZero() {
		s.asked = now
	}
	err := r.f.reapAt(ctx, id, score, s.asked)
	if err == nil {
		delete(r.seen, id)
	} else if !answered(err) {
		r.seen[id] = s
	}
	return err
}

// reap gives a job to living workers if its lease is still the one that was observed. For a lost answer the reaper asks.
func (f *fetcher) reap(ctx context.Context, id, score string) error {
	now := time.Now()
	err := f.reapAt(ctx, id, score, now)
	if err != nil && !answered(err) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.doubted[id] = sighting{score: score, since: now, asked: now}
	}
	return err
}

// doubts adds the jobs of which reap has had no answer to those that were seen.
func (f *fetcher) doubts(seen map[string]sighting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, s := range f.doubted {
		if seen[id].asked.IsZero() {
			seen[id] = s
		}
	}
	clear(f.doubted)
}

// reapAt is reap at a time that tells the call from others: made again, as its answer was lost, it comes to the same.
func (f *fetcher) reapAt(ctx context.Context, id, score string, now time.Time) error {
	name := f.queue.Name
	n, err := reapScript.Run(ctx, f.jobs.rdb,
		[]string{asynqKey(name, "active"), asynqKey(name, "lease"), asynqKey(name, "pending"), taskPrefix(name) + id, asynqKey(name, "archived")},
		id, score, now.UnixNano(), maxStalls, now.Unix(), failedWith(now, "queue: the job's worker died or hung while it ran, more often than is tried again")).Int()
	if err != nil {
		return err
	}
	switch n {
	case 1:
		f.jobs.meters.stalled.WithLabelValues(name).Inc()
		f.jobs.log.Warn("queue: a job's worker is gone, the job is back at the head of its queue", "queue", name, "id", id)
	case 2:
		f.jobs.meters.stalled.WithLabelValues(name).Inc()
		f.jobs.log.Error("queue: a job's worker is gone once more, the job has failed", "queue", name, "id", id)
		f.died(id)
	}
	return nil
}
