package queue

import (
	"context"
	"time"
)

const (
	// putOffFor is how long a job waits that was taken from this worker and came to it again while its handler runs on here.
	putOffFor = 2 * time.Second
	// leaving is how long asynq may take to forget a run after its end is recorded.
	leaving = 250 * time.Millisecond
)

// putOff is a job that was popped and must not go to asynq now.
type putOff struct {
	id, owner, start string
	delay            time.Duration
}

// here returns for how long job id, whose ticket t is, must not go to asynq, because that has a run of it, or may. Two of one ID
// would mix up their heartbeats, which asynq keeps by ID, and their ends, and the slot of the first would be free while it runs.
// The caller holds f.mu.
func (f *fetcher) here(t *ticket, id string, now time.Time) time.Duration {
	if t == nil {
		return f.left[id].Add(leaving).Sub(now)
	}
	if t.ending || t.running && !t.returned || now.Sub(t.since) <= promptly {
		return putOffFor
	}
	return 0 // asynq has dropped it
}

// leave notes that asynq is about to forget a run of a job that may come back.
func (f *fetcher) leave(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left[id] = time.Now()
}

// putOff gives jobs back for a while, with no attempt counted, and their starts with them: another worker may take them sooner.
func (f *fetcher) putOff(ctx context.Context, jobs []putOff) {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	for _, job := range jobs {
		if err := f.back(ctx, ending{id: job.id, owner: job.owner, msg: job.start, score: due(job.delay)}); err != nil {
			f.jobs.background("put off", err, "queue", f.queue.Name) // it comes back by its lease
		}
	}
}

// back gives a job back that has not run here, until Redis has answered or ctx ends. One that is another worker's by then stays so.
func (f *fetcher) back(ctx context.Context, x ending) error {
	x.verb = "back"
	_, err := f.insist(ctx, func() (string, error) {
		_, err := f.ender.end(ctx, x)
		return "OK", err
	})
	return err
}
