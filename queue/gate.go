package queue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

const (
	// maxWait bounds every wait inside a fetch, so that a changed limit, target or gate is noticed.
	maxWait = 200 * time.Millisecond
	// popTimeout bounds one call of the pop script: asynq passes a context without a deadline.
	popTimeout = 5 * time.Second
)

// fetcher is the Redis client that one queue's asynq server works with. It replaces the fetch script by one
// that knows limits, slots and the gate, and sees to it that a job's end is recorded.
type fetcher struct {
	redis.UniversalClient
	jobs   *Jobs
	queue  Queue
	index  int // in slots
	slots  *slots
	pollTo time.Duration
	id     string
	closed chan struct{}
	fail   func(error)
	// onStart sees the start times that the limiter has stamped; tests count them.
	onStart func(queue string, stamp int64)

	seen  atomic.Bool
	pops  uint64 // this and empty belong to asynq's one fetching goroutine
	empty time.Duration

	mu      sync.Mutex
	tickets map[string]*ticket
	back    map[string]giveBack
}

// ticket is a slot from the fetch of a job until its handler has returned, which may be later than asynq's own
// slot: asynq frees that when the job's time is up, while the handler still runs.
type ticket struct {
	since   time.Time
	running bool
	given   bool
}

func newFetcher(j *Jobs, q Queue, index int, s *slots, poll time.Duration, fail func(error)) *fetcher {
	return &fetcher{
		UniversalClient: j.rdb, jobs: j, queue: q, index: index, slots: s, pollTo: poll, id: uuid.NewString(),
		closed: make(chan struct{}), fail: fail, tickets: make(map[string]*ticket), back: make(map[string]giveBack),
	}
}

// Eval and EvalSha are where asynq's scripts pass.
func (f *fetcher) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return f.script(ctx, keys, args, func() *redis.Cmd { return f.UniversalClient.Eval(ctx, script, keys, args...) })
}

// EvalSha is Eval by digest.
func (f *fetcher) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return f.script(ctx, keys, args, func() *redis.Cmd { return f.UniversalClient.EvalSha(ctx, sha, keys, args...) })
}

func (f *fetcher) script(ctx context.Context, keys []string, args []any, call func() *redis.Cmd) *redis.Cmd {
	switch shapeOf(f.queue.Name, keys, args) {
	case shapeFetch:
		f.seen.Store(true)
		return f.fetch(ctx, keys, args)
	case shapeFinish:
		return f.finish(ctx, keys, args, call)
	case shapeStrange:
		err := fmt.Errorf("%w: a script on queue %q has keys %q", ErrNotGated, f.queue.Name, keys)
		f.fail(err)
		return failed(ctx, err)
	default:
		return call()
	}
}

type shape int

const (
	shapeOther shape = iota
	shapeFetch
	shapeFinish
	shapeStrange
)

// shapeOf tells asynq's scripts apart by their keys, a layout unchanged since v0.22. Whatever touches the waiting
// and the running jobs at once is a fetch: one of an unknown form must not pass, as it would pass the limit too.
func shapeOf(queue string, keys []string, args []any) shape {
	pending, active, lease := asynqKey(queue, "pending"), asynqKey(queue, "active"), asynqKey(queue, "lease")
	switch {
	case slices.Equal(keys, []string{pending, asynqKey(queue, "paused"), active, lease}):
		if len(args) == 2 && args[1] == any(taskPrefix(queue)) {
			return shapeFetch
		}
		return shapeStrange
	case len(keys) >= 3 && len(args) > 0 && keys[0] == active && keys[1] == lease,
		len(keys) >= 4 && len(args) > 0 && keys[1] == active && keys[2] == lease:
		return shapeFinish
	case slices.Contains(keys, pending) && slices.Contains(keys, active):
		return shapeStrange
	default:
		return shapeOther
	}
}

// fetch answers asynq's dequeue with a message, or with "nothing there" after a wait. All waiting happens here,
// where a stop ends it.
func (f *fetcher) fetch(ctx context.Context, keys []string, args []any) *redis.Cmd {
	if f.stopped() {
		return failed(ctx, redis.Nil)
	}
	if err := f.jobs.allow(ctx, f.queue); err != nil {
		return f.nothing(ctx, maxWait)
	}
	if !f.slots.take(f.index) {
		return f.nothing(ctx, maxWait)
	}
	if err := f.jobs.allow(ctx, f.queue); err != nil { // asked again now that Writing counts it
		f.slots.give(f.index)
		return f.nothing(ctx, maxWait)
	}
	reply, err := f.pop(ctx, keys, args)
	if err == nil && reply.kind == "job" {
		f.empty = 0
		f.pops++
		f.mu.Lock()
		f.tickets[reply.id] = &ticket{since: time.Now()}
		f.mu.Unlock()
		if f.onStart != nil && reply.stamp > 0 {
			f.onStart(f.queue.Name, reply.stamp)
		}
		cmd := redis.NewCmd(ctx)
		cmd.SetVal(reply.msg)
		return cmd
	}
	f.slots.give(f.index)
	switch {
	case err != nil:
		f.jobs.background("fetch", err, "queue", f.queue.Name)
		return f.nothing(ctx, time.Second)
	case reply.kind == "limited":
		f.jobs.meters.limited.WithLabelValues(f.queue.Name).Inc()
		return f.nothing(ctx, min(reply.wait, maxWait))
	case reply.kind == "paused":
		return f.nothing(ctx, maxWait)
	default:
		f.empty = min(max(2*f.empty, 5*time.Millisecond), f.pollTo)
		return f.nothing(ctx, f.empty)
	}
}

// nothing waits and says that there is no job.
func (f *fetcher) nothing(ctx context.Context, wait time.Duration) *redis.Cmd {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	wake := f.slots.wake[f.index]
	if wait < maxWait {
		wake = nil // waits for the clock or for Redis, which a free slot does not change
	}
	select {
	case <-timer.C:
	case <-wake:
	case <-f.closed:
	}
	return failed(ctx, redis.Nil)
}

type popReply struct {
	kind, msg, id string
	stamp         int64
	wait          time.Duration
}

// pop runs the pop script. Its nonce changes only after an answer: a call whose answer was lost is repeated by the
// next one, which then gets the very job that was popped.
func (f *fetcher) pop(ctx context.Context, keys []string, args []any) (popReply, error) {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	name := f.queue.Name
	window := f.queue.Rate.Per + f.queue.Rate.guard()
	res, err := popScript.Run(ctx, f.jobs.rdb,
		append(keys[:4:4], ownKey(name, "starts"), ownKey(name, "pop:"+f.id)),
		args[0], args[1], f.queue.Rate.Max, window.Microseconds(), f.id+":"+strconv.FormatUint(f.pops, 10),
	).StringSlice()
	if err != nil {
		return popReply{}, err
	}
	return parsePop(res)
}

func parsePop(res []string) (popReply, error) {
	switch {
	case len(res) == 1 && (res[0] == "empty" || res[0] == "paused"):
		return popReply{kind: res[0]}, nil
	case len(res) == 2 && res[0] == "limited":
		us, err := strconv.ParseInt(res[1], 10, 64)
		return popReply{kind: res[0], wait: time.Duration(us) * time.Microsecond}, err
	case len(res) == 4 && res[0] == "job":
		stamp, err := strconv.ParseInt(res[3], 10, 64)
		return popReply{kind: res[0], msg: res[1], id: res[2], stamp: stamp}, err
	default:
		return popReply{}, fmt.Errorf("queue: the pop script answered with %d values", len(res))
	}
}

func (f *fetcher) stopped() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}

func failed(ctx context.Context, err error) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(err)
	return cmd
}
