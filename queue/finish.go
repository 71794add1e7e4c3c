package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// promptly is how soon after its hand a job's handler must start. Together with how old a job may be when it is handed, that is
// less than the least stall timeout: until then the job is this worker's for certain, and its end will be recorded.
const promptly = 5 * time.Second

// errLateStart is no failure of the job: it goes back and runs with no attempt counted.
var errLateStart = errors.New("queue: a job's handler was about to start so long after its fetch that the job may be another worker's, so it is given back")

// errStray is what asynq is told of a start that has no ticket: the job's end is not this one's to record.
var errStray = errors.New("queue: a job's handler was about to start after its slot was given up, so it does not run here")

// reason is what a failed attempt is said to have failed of.
func (x ending) reason() (reason string) {
	if x.verb == "retry" || x.verb == "archive" {
		fields(x.msg, func(field uint64, text string) bool {
			if field == 7 {
				reason = text
			}
			return true
		}, nil)
	}
	return reason
}

// begin notes that the handler of a fetched job starts. It must not when there is no ticket, or when it is late.
func (f *fetcher) begin(id string, until time.Time) (t *ticket, late bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t = f.tickets[id]
	if t == nil || t.running {
		return nil, false
	}
	t.running, t.until = true, until
	if late = time.Since(t.since) > promptly; late {
		t.back = &giveBack{}
	}
	return t, late
}

// use notes that the start of a job is used: what it is given for runs now.
func (f *fetcher) use(id string, t *ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.start = ""
	if f.onUse != nil && t.stamp > 0 {
		f.onUse(f.queue.Name, id, t.stamp)
	}
}

// end notes that it has returned, and whether the job is done, which asynq will say, too.
func (f *fetcher) end(id string, t *ticket, done bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t.returned, t.since = true, time.Now()
	if done {
		f.carry(id, t)
	}
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
	if !t.running || t.returned { // else its time is up, and its handler runs on
		f.free(t)
	}
	f.remove(id, t)
}

// sweep drops the tickets of jobs that asynq will not end any more: it does nothing with one whose lease was over by the time
// when it was to start, had returned, or had no time left. Such a job comes back by its lease, as that is not extended any more.
func (f *fetcher) sweep(now time.Time) {
	const patience = time.Minute
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.tickets {
		switch {
		case t.ending && t.carried == nil:
		case t.running && !t.returned:
			if now.Sub(t.until) > patience {
				f.remove(id, t) // its slot is free when its handler returns
			}
		case now.Sub(t.since) > patience:
			f.drop(id, t)
		}
	}
	for id, at := range f.left {
		if now.Sub(at) > leaving {
			delete(f.left, id)
		}
	}
}

// drop forgets a ticket. The caller holds f.mu.
func (f *fetcher) drop(id string, t *ticket) {
	f.free(t)
	f.remove(id, t)
}

func (f *fetcher) remove(id string, t *ticket) {
	if f.tickets[id] != t {
		return
	}
	delete(f.tickets, id)
	f.handed.Add(-1)
	select {
	case f.ended <- struct{}{}:
	default:
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
	switch x.reason() {
	case errStray.Error():
		f.leave(x.id)
		return recorded(ctx)
	case asynq.ErrLeaseExpired.Error():
		return recording(ctx, f.recover(ctx, x.id))
	}
	t, seen := f.ending(x.id)
	defer f.forget(x.id, t)
	if !known { // of an asynq of another time: its own script, if it will have it
		_, err := f.insist(ctx, func() (string, error) { return "OK", call().Err() })
		f.leave(x.id)
		return recording(ctx, err)
	}
	x.owner = seen.owner
	record := func() (string, error) { return f.ender.end(ctx, x) }
	switch {
	case seen.carried != nil: // asynq may think otherwise, if the job's time was up just then
		x, record = seen.carried.ending, seen.carried.first(ctx, record)
	case x.verb != "retry" && x.verb != "archive":
	case seen.back != nil:
		x = ending{verb: "back", id: x.id, owner: x.owner, msg: seen.start, score: due(seen.back.delay)}
	case x.verb == "retry" && !seen.again.IsZero():
		x.score = neverEarly(seen.again)
	}
	reply, err := f.insist(ctx, record)
	if reply != "OK" || x.verb != "done" && x.verb != "complete" {
		f.leave(x.id)
	}
	if x.verb == "archive" && f.hasFailed(ctx, x.id, reply) {
		f.died(x.id)
	}
	return recording(ctx, err)
}

// recover is what asynq's recoverer does in place of counting an attempt: a job whose lease is over goes back like one of a dead
// worker. So it is where this process holds the job and asynq has dropped it, as heartbeats were lost, or where Redis did not answer
// the reaper.
func (f *fetcher) recover(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	score, err := f.jobs.rdb.ZScore(ctx, asynqKey(f.queue.Name, "lease"), id).Result()
	switch {
	case isNil(err), err == nil && score > float64(time.Now().Unix()): // it has ended meanwhile, or lives
		return nil
	case err != nil:
		return err
	}
	return f.reap(ctx, id, formatScore(redis.Z{Score: score}))
}

// ending returns the ticket of a job that is about to be ended, if there is one, and what it says now: its handler may run on.
func (f *fetcher) ending(id string) (t *ticket, seen ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t = f.tickets[id]; t != nil {
		t.ending, seen = true, *t
	}
	return t, seen
}

// inDoubt is what a recording comes to that was lost and whose repetition finds no such job running: Redis had heard it, as a
// rule, or the job was taken meanwhile.
const inDoubt = "IN DOUBT"

// insist repeats a recording until Redis has answered, or ctx ends, which is the job's lease. It returns "OK", "NOT FOUND" or inDoubt.
func (f *fetcher) insist(ctx context.Context, record func() (string, error)) (reply string, err error) {
	doubtful := false
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if reply, err = record(); notFound(err) {
			reply, err = "NOT FOUND", nil
		}
		switch {
		case err == nil && reply == "NOT FOUND" && doubtful:
			return inDoubt, nil
		case err == nil:
			if reply == "NOT FOUND" {
				f.jobs.background("late end", errLateEnd, "queue", f.queue.Name)
			}
			return reply, nil
		case answered(err) && !passing(err):
			return "", err
		}
		doubtful = doubtful || !answered(err)
		if !sleep(ctx, pause) {
			return "", err
		}
	}
}

// hasFailed reports whether a job is among the failed ones by the recording that was replied to.
func (f *fetcher) hasFailed(ctx context.Context, id, reply string) bool {
	if reply != inDoubt {
		return reply == "OK"
	}
	state, err := f.jobs.rdb.HGet(ctx, taskPrefix(f.queue.Name)+id, "state").Result()
	return err == nil && state == "archived"
}

// recording is how asynq hears of a recording, which need not concern it further.
func recording(ctx context.Context, err error) *redis.Cmd {
	if err != nil {
		return failed(ctx, err)
	}
	return recorded(ctx)
}

// recorded is what asynq's scripts answer.
func recorded(ctx context.Context) *redis.Cmd {
	ok := redis.NewCmd(ctx)
	ok.SetVal("OK")
	return ok
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
// up to a second early. It is the next microsecond: a job for now does not wait for the next look at delayed ones.
func neverEarly(t time.Time) string {
	t = t.Add(time.Microsecond - 1)
	return fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000)
}
