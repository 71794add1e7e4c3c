package queue

import (
	"context"
	"fmt"
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
	}
	t.running = true
	return t
}

// end notes that it has returned.
func (f *fetcher) end(id string, t *ticket) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tickets[id] == t {
		delete(f.tickets, id)
	}
	f.free(t)
}

func (f *fetcher) free(t *ticket) {
	if !t.given {
		t.given = true
		f.slots.give(f.index)
	}
}

// sweep frees slots of jobs whose handler asynq never called, because their message could not be read.
func (f *fetcher) sweep(now time.Time) {
	const startsWithin = time.Minute
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.tickets {
		if !t.running && now.Sub(t.since) > startsWithin {
			delete(f.tickets, id)
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
	id := fmt.Sprint(args[0])
	f.mu.Lock()
	if t := f.tickets[id]; t != nil && !t.running {
		delete(f.tickets, id) // ended before its handler was called: its deadline had passed
		f.free(t)
	}
	back, returned := f.back[id]
	delete(f.back, id)
	f.mu.Unlock()
	switch requeue := keys[0] == asynqKey(f.queue.Name, "active") && keys[2] == asynqKey(f.queue.Name, "pending"); {
	case requeue:
		call = func() *redis.Cmd { return f.runBack(ctx, id, 0) }
	case returned && keys[0] == taskPrefix(f.queue.Name)+id: // asynq's retry or archive
		call = func() *redis.Cmd { return f.runBack(ctx, id, back.delay) }
	}
	doubtful := false
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		cmd := call()
		err := cmd.Err()
		switch {
		case err == nil:
			return cmd
		case doubtful && notFound(err): // the lost answer was a success
			ok := redis.NewCmd(ctx)
			ok.SetVal("OK")
			return ok
		case answered(err) && !passing(err):
			return cmd
		}
		doubtful = doubtful || !answered(err)
		if !sleep(ctx, pause) {
			return cmd
		}
	}
}

func (f *fetcher) runBack(ctx context.Context, id string, delay time.Duration) *redis.Cmd {
	name := f.queue.Name
	now := time.Now()
	due := ""
	if delay > 0 {
		due = strconv.FormatInt(now.Add(delay).Unix(), 10)
	}
	return backScript.Run(ctx, f.jobs.rdb,
		[]string{asynqKey(name, "active"), asynqKey(name, "lease"), asynqKey(name, "pending"), asynqKey(name, "retry"), taskPrefix(name) + id},
		id, now.UnixNano(), due)
}
