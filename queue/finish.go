package queue

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// promptly is how soon after its hand a job's handler must start. Together with how old a job may be when it is handed, that is
// less than the least stall timeout: until then the job is this worker's for certain, and its end will be recorded.
const promptly = 5 * time.Second

// errLateStart is no failure of the job: it goes back and runs with no attempt counted.
var errLateStart = errors.New("queue: a job's handler was about to start so long after its fetch that the job may be another worker's, so it is given back")

// begin notes that the handler of a fetched job starts. It must not when there is no ticket, as the job was given back, or when
// it is late.
func (f *fetcher) begin(id string) (t *ticket, late bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t = f.tickets[id]
	if t == nil || t.running {
		return nil, true
	}
	t.running = true
	if late = time.Since(t.since) > promptly; late {
		t.back = &giveBack{}
	}
	return t, late
}

// end notes that it has returned.
func (f *fetcher) end(t *ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.returned, t.since = true, time.Now()
	f.free(t)
}

func (f *fetcher) free(t *ticket) {
	if !t.given {
		t.given = true
		f.slots.give(f.index, 1)
	}
}

// forget drops the ticket of a job whose end is recorded, or will not be.
func (f *fetcher) forget(id string, t *ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t == nil {
		return
	}
	if t.running && !t.returned { // its time is up, and its handler runs on
		if f.tickets[id] == t {
			delete(f.tickets, id)
			f.handed.Add(-1)
		}
		return
	}
	f.drop(id, t)
}

// sweep drops the tickets of jobs that asynq will not end any more: it does nothing with one whose lease was over by the time
// when it was to start or had returned. What did not run goes back, if it is still ours.
func (f *fetcher) sweep(ctx context.Context, now time.Time) {
	const patience = time.Minute
	var back []ending
	f.mu.Lock()
	for id, t := range f.tickets {
		if now.Sub(t.since) <= patience || t.ending || t.running && !t.returned {
			continue
		}
		f.drop(id, t)
		if !t.running || t.back != nil {
			back = append(back, ending{verb: "back", id: id, owner: t.owner})
		}
	}
	f.mu.Unlock()
	for _, x := range back {
		if _, err := f.ender.end(ctx, x); err != nil {
			f.jobs.background("reap", err, "queue", f.queue.Name) // it comes back by its lease
		}
	}
}

// drop forgets a ticket. The caller holds f.mu.
func (f *fetcher) drop(id string, t *ticket) {
	f.free(t)
	if f.tickets[id] == t {
		delete(f.tickets, id)
		f.handed.Add(-1)
	}
}

// holds reports whether this process has job id: the reaper must not take its own worker's jobs because of a clock.
func (f *fetcher) holds(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tickets[id] != nil
}

// returnJob makes the coming end of a job a return without a counted attempt.
func (f *fetcher) returnJob(t *ticket, delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.back = &giveBack{delay}
}

// finish records how a job ended. asynq leaves a failed recording to a syncer whose context is cancelled already
// (since v0.25), so the job would run again; here the recording is repeated until the job's lease is over.
func (f *fetcher) finish(ctx context.Context, keys []string, args []any, call func() *redis.Cmd) *redis.Cmd {
	x, known := endingOf(f.queue.Name, keys, args)
	t := f.ending(x.id)
	defer f.forget(x.id, t)
	if !known { // of an asynq of another time: its own script, if it will have it
		return f.insist(ctx, func() (string, error) { return "OK", call().Err() })
	}
	if t != nil {
		x.owner = t.owner
		switch {
		case x.verb != "retry" && x.verb != "archive":
		case t.back != nil:
			x = ending{verb: "back", id: x.id, owner: x.owner, score: due(t.back.delay)}
		case x.verb == "retry" && !t.again.IsZero():
			x.score = neverEarly(t.again)
		}
	}
	cmd := f.insist(ctx, func() (string, error) { return f.ender.end(ctx, x) })
	if cmd.Err() == nil && x.verb == "archive" {
		f.died(x.id)
	}
	return cmd
}

// ending returns the ticket of a job that is about to be ended.
func (f *fetcher) ending(id string) *ticket {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tickets[id]
	if t != nil {
		t.ending = true
	}
	return t
}

// insist repeats a recording until Redis has answered, or ctx ends, which is the job's lease.
func (f *fetcher) insist(ctx context.Context, record func() (string, error)) *redis.Cmd {
	doubtful := false
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		reply, err := record()
		switch {
		case notFound(err):
			reply, err = "NOT FOUND", nil
			fallthrough
		case err == nil:
			if reply == "NOT FOUND" && !doubtful { // else the lost answer was a success
				f.jobs.background("late end", errLateEnd, "queue", f.queue.Name)
			}
			ok := redis.NewCmd(ctx)
			ok.SetVal("OK")
			return ok
		case answered(err) && !passing(err):
			return failed(ctx, err)
		}
		doubtful = doubtful || !answered(err)
		if !sleep(ctx, pause) {
			return failed(ctx, err)
		}
	}
}

// errLateEnd is no failure of the job: it ran, and somebody else runs it again or has ended it.
var errLateEnd = errors.New("queue: a job ended after it was given to another worker, because this one was not heard of for too long")

// due is the score of a job that waits for so long; "" for none.
func due(delay time.Duration) string {
	if delay <= 0 {
		return ""
	}
	return neverEarly(time.Now().Add(delay))
}

// neverEarly is a time as asynq's sorted sets have it, in seconds; with the fraction that asynq leaves out, which makes a job
// up to a second early. It is the next millisecond.
func neverEarly(t time.Time) string {
	return strconv.FormatFloat(float64(t.Add(time.Millisecond-1).UnixMilli())/1000, 'f', 3, 64)
}
