package queue

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// giveBack says what becomes of a job that its handler did not do, in place of asynq's failed attempt.
type giveBack struct {
	delay time.Duration // zero: back to the head of the queue
	since time.Time
}

// begin notes that the handler of a fetched job starts.
func (f *fetcher) begin(id string) *ticket {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tickets[id]
	if t == nil {
		t = &ticket{since: time.Now(), given: true} // swept, because the start took a minute
		f.tickets[id] = t
		f.handed.Add(1)
	}
	t.running = true
	return t
}

// end notes that it has returned.
func (f *fetcher) end(t *ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.returned = true
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
	if !t.running { // ended before its handler was called: its deadline had passed
		f.free(t)
	}
	if f.tickets[id] == t {
		delete(f.tickets, id)
		f.handed.Add(-1)
	}
}

// sweep frees slots of jobs whose handler asynq never called, because their message could not be read.
func (f *fetcher) sweep(now time.Time) {
	const startsWithin = time.Minute
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.tickets {
		if now.Sub(t.since) > startsWithin && (!t.running || t.returned) {
			delete(f.tickets, id)
			f.handed.Add(-1)
			f.free(t)
		}
	}
	for id, b := range f.back {
		if now.Sub(b.since) > startsWithin {
			delete(f.back, id)
		}
	}
}

// holds reports whether this process has job id: the reaper must not take its own worker's jobs because of a clock.
func (f *fetcher) holds(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tickets[id] != nil
}

// returnJob makes the coming end of job id a return without a counted attempt.
func (f *fetcher) returnJob(id string, delay time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.back[id] = giveBack{delay: delay, since: time.Now()}
}

// finish records how a job ended. asynq leaves a failed recording to a syncer whose context is cancelled already
// (since v0.25), so the job would run again; here the recording is repeated until the job's lease is over.
func (f *fetcher) finish(ctx context.Context, keys []string, args []any, call func() *redis.Cmd) *redis.Cmd {
	x, known := endingOf(f.queue.Name, keys, args)
	f.mu.Lock()
	t := f.tickets[x.id]
	back, returned := f.back[x.id]
	delete(f.back, x.id)
	f.mu.Unlock()
	defer f.forget(x.id, t)
	if !known { // of an asynq of another time: its own script, if it will have it
		return f.insist(ctx, func() (string, error) { return "OK", call().Err() })
	}
	if t != nil {
		x.owner = t.owner
	}
	if returned && (x.verb == "retry" || x.verb == "archive") {
		x = ending{verb: "back", id: x.id, owner: x.owner, score: due(back.delay)}
	}
	cmd := f.insist(ctx, func() (string, error) { return f.ender.end(ctx, x) })
	if cmd.Err() == nil && x.verb == "archive" {
		f.died(x.id)
	}
	return cmd
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
	return score(time.Now().Add(delay))
}

// score is a time as asynq's sorted sets have it, in seconds; with the fraction that asynq leaves out, which makes a job
// up to a second early.
func score(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
