package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errUnreadable is why a job fails without having run.
var errUnreadable = errors.New("queue: the job was stored past this package and asynq cannot read it")

// putAside makes jobs that asynq cannot read failed ones, and returns the others: asynq drops the former without a word, so they
// would keep a slot until somebody missed them. What was stored is kept as the payload of the failed job.
func (f *fetcher) putAside(ctx context.Context, jobs []popped) []popped {
	good := jobs[:0]
	for _, job := range jobs {
		why := unreadable(job.msg, job.id, f.queue.Name)
		if why == "" {
			good = append(good, job)
			continue
		}
		now := time.Now()
		t, seen := f.ending(job.id)
		if t == nil {
			continue // its ID was there twice, and it is among the failed ones
		}
		err := fmt.Errorf("%w: %s", errUnreadable, why)
		m := message{kind: kindUnreadable, payload: []byte(job.msg), id: job.id, queue: f.queue.Name, err: err.Error(), lastFailed: now}
		x := ending{verb: "archive", id: job.id, owner: seen.owner, msg: string(m.encode()), score: fmt.Sprint(now.Unix())}
		told, cancel := context.WithTimeout(ctx, popTimeout)
		reply, failed := f.insist(told, func() (string, error) { return f.ender.end(told, x) })
		cancel()
		f.forget(job.id, t)
		if failed != nil {
			f.jobs.background("aside", failed, "queue", f.queue.Name) // it comes back by its lease
			continue
		}
		if f.hasFailed(ctx, job.id, reply) {
			f.jobs.log.Error("queue: a job cannot be read and has failed", "queue", f.queue.Name, "id", clip(job.id), "reason", why)
			f.died(job.id)
		}
	}
	return good
}
