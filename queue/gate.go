package queue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
// that knows limits, slots and the gate and gets several jobs at once, and sees to it that a job's end is recorded.
type fetcher struct {
	redis.UniversalClient
	jobs     *Jobs
	queue    Queue
	index    int    // in slots
	declared string // limits, for the pop script
	slots    *slots
	most     int // jobs that asynq can have at once
	pollTo   time.Duration
	id       string
	closed   chan struct{}
	// freshFor is how old a job may be when it is handed; tests change it.
	freshFor time.Duration

	fail   func(error)
	ender  *ender
	onDead func(ctx context.Context, job DeadJob)
	// onStart sees the start times that the limiter has stamped, and onUse those that jobs run with; tests count them.
	onStart, onUse func(queue, id string, stamp int64)

	seen  atomic.Bool
	pops  uint64 // the number of the last pop; these, empty, away and ready belong to asynq's one fetching goroutine
	known uint64 // the number of the last one whose jobs have arrived
	empty time.Duration
	away  time.Duration
	ready []popped

	handed  atomic.Int64  // jobs that asynq has, whose end is not recorded
	ended   chan struct{} // one of them was ended
	mu      sync.Mutex
	tickets map[string]*ticket
	left    map[string]time.Time // whose run asynq has just left, and which may come back
	doubted map[string]sighting  // which were to be reaped, and Redis has not answered; the reaper asks again
	waits   bool                 // for a slot
	carries []*carried
}

// ticket is a slot from the fetch of a job until its handler has returned, which may be later than asynq's own
// slot: asynq frees that when the job's time is up, while the handler still runs.
type ticket struct {
	since    time.Time // of its fetch, then of its hand, then of its handler's return
	until    time.Time // when its time is up
	owner    string    // the nonce of its pop
	start    string    // as the limiter has stamped it, or "" when that is used, or there is no limit
	stamp    int64     // its time
	running  bool
	returned bool
	ending   bool
	given    bool
	back     *giveBack // how it is returned; nil for a job that was done, or has failed
	again    time.Time // of the next attempt, as asynq knows it to the second only
	lock     string    // the unique one that it has, or ""
	retained bool      // once it is done
	carried  *carried  // its end, or nil
}

// giveBack says what becomes of a job that its handler did not do, in place of asynq's failed attempt.
type giveBack struct {
	delay time.Duration // zero: back to the head of the queue
}

func newFetcher(j *Jobs, q Queue, index int, s *slots, most int, poll time.Duration, fail func(error)) *fetcher {
	return &fetcher{
		UniversalClient: j.rdb, jobs: j, queue: q, index: index, declared: q.limits().text(), slots: s, most: most, pollTo: poll, id: uuid.NewString(),
		closed: make(chan struct{}), freshFor: 5 * time.Second, fail: fail, ender: &ender{jobs: j, queue: q.Name},
		tickets: make(map[string]*ticket), left: make(map[string]time.Time), doubted: make(map[string]sighting), ended: make(chan struct{}, 1),
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
	case shapeForward:
		return f.forward(ctx, keys, args, call)
	case shapeStrange:
		err := fmt.Errorf("%w: a script on queue %q has keys %q and %d arguments", ErrNotGated, f.queue.Name, keys, len(args))
		f.fail(err)
		return failed(ctx, err)
	default:
		return call()
	}
}

// bypassed says that jobs come from asynq without a fetch that was seen here. That breaks limits, also those which SetLimits
// may set later, and the ends of such jobs would be refused, as nobody here has popped them.
func (f *fetcher) bypassed() bool { return !f.seen.Load() }

type shape int

const (
	shapeOther shape = iota
	shapeFetch
	shapeFinish
	shapeForward
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
		len(keys) >= 4 && len(args) > 0 && strings.HasPrefix(keys[0], taskPrefix(queue)) && keys[1] == active && keys[2] == lease:
		return shapeFinish
	case len(keys) == 2 && len(args) == 4 && keys[1] == pending && args[1] == any(taskPrefix(queue)):
		return shapeForward
	case slices.Contains(keys, pending) && slices.Contains(keys, active):
		return shapeStrange
	default:
		return shapeOther
	}
}

// maxFetch is the most jobs of one pop. More would not be faster, and Redis serves nobody else meanwhile.
const maxFetch = 64

// popped is a job on its way to asynq.
type popped struct{ id, msg string }

// fetch answers asynq's dequeue with a message, or with "nothing there" after a wait. All waiting happens here, where a stop ends
// it, as asynq would sleep on top. Several jobs are fetched at once, as many as can start right away: asynq comes for the others at
// once, too.
func (f *fetcher) fetch(ctx context.Context, keys []string, args []any) *redis.Cmd {
	for patience := time.Now().Add(maxWait); ; {
		if f.stopped() {
			f.deliver(ctx)
			return failed(ctx, redis.Nil)
		}
		if len(f.ready) > 0 {
			return f.hand(ctx)
		}
		wait, wake := f.refill(ctx, keys, args)
		f.deliver(ctx)
		if len(f.ready) > 0 {
			continue
		}
		if time.Now().After(patience) { // the lease that asynq has in mind began with the call
			return failed(ctx, redis.Nil)
		}
		f.until(wait, wake)
	}
}

// refill fetches jobs if any can start. Where there is none it says how long to wait, and what may end that sooner: clocks and Redis
// are not hurried by a free slot.
func (f *fetcher) refill(ctx context.Context, keys []string, args []any) (wait time.Duration, wake <-chan struct{}) {
	if err := f.jobs.allow(ctx, f.queue); err != nil {
		return maxWait, nil
	}
	room := f.most - int(f.handed.Load())
	if room <= 0 {
		return maxWait, f.ended
	}
	n := f.slots.take(f.index, min(maxFetch, room))
	if n == 0 {
		return maxWait, f.slots.wake[f.index]
	}
	if err := f.jobs.allow(ctx, f.queue); err != nil { // asked again now that Writing counts it
		f.slots.give(f.index, n)
		return maxWait, nil
	}
	began := time.Now() // the jobs are this worker's from then on, and it may stand still before it has the answer
	f.pops++
	reply, err := f.pop(ctx, keys, args, n)
	f.slots.give(f.index, n-len(reply.jobs))
	if err != nil { // a lost connection is there again at once, a lost server is not to be stormed
		f.jobs.background("fetch", err, "queue", f.queue.Name)
		f.away = min(max(2*f.away, 20*time.Millisecond), time.Second)
		return f.away, nil
	}
	f.away = 0
	if len(reply.jobs) > 0 {
		f.empty = 0
		f.known = f.pops
		fresh, again := f.note(reply, began)
		f.putOff(ctx, again)
		f.ready = f.putAside(ctx, fresh)
		return 0, nil
	}
	switch {
	case reply.kind == "limited":
		f.jobs.meters.limited.WithLabelValues(f.queue.Name).Inc()
		return min(reply.wait, maxWait), nil
	case reply.kind == "paused":
		return maxWait, nil
	default: // empty, or as many run as may, of which ours may end
		f.empty = min(max(2*f.empty, 5*time.Millisecond), f.pollTo)
		if reply.kind == "full" {
			wake = f.ended
		}
		return f.empty, wake
	}
}

// note makes the tickets of jobs that were popped. It returns those jobs, and apart from them those that run here already.
func (f *fetcher) note(reply popReply, began time.Time) (fresh []popped, again []putOff) {
	owner, start, now := f.nonce(), reply.start(), time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh = reply.jobs[:0]
	for _, job := range reply.jobs {
		stale := f.tickets[job.id]
		if delay := f.here(stale, job.id, now); delay > 0 {
			f.slots.give(f.index, 1)
			if stale == nil || stale.owner != owner { // else its ID was there twice
				again = append(again, putOff{job.id, owner, start, delay})
			}
			continue
		}
		if stale != nil {
			f.drop(job.id, stale)
		}
		t := &ticket{since: began, owner: owner, start: start, stamp: reply.stamp}
		t.lock, t.retained = afterwards(job.msg)
		f.tickets[job.id] = t
		f.handed.Add(1)
		fresh = append(fresh, job)
		if f.onStart != nil && reply.stamp > 0 {
			f.onStart(f.queue.Name, job.id, reply.stamp)
		}
	}
	return fresh, again
}

// hand gives asynq the first job that is ready. If this process stood still meanwhile, the job may be another worker's
// by now, so it is given back.
func (f *fetcher) hand(ctx context.Context) *redis.Cmd {
	job := f.ready[0]
	if !f.handing(job.id, f.freshFor) {
		f.unready()
		return failed(ctx, redis.Nil)
	}
	f.ready = f.ready[1:]
	cmd := redis.NewCmd(ctx)
	cmd.SetVal(job.msg)
	return cmd
}

// handing notes that a job goes to asynq, if it was fetched recently enough.
func (f *fetcher) handing(id string, within time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, now := f.tickets[id], time.Now()
	if t == nil || now.Sub(t.since) > within {
		return false
	}
	t.since = now
	return true
}

// unready returns the jobs that were fetched and did not start to the head of their queue, in their order, and gives their starts back.
// Where Redis does not answer for long they come back by their leases.
func (f *fetcher) unready() {
	ctx, cancel := context.WithTimeout(context.Background(), popTimeout)
	defer cancel()
	for _, job := range slices.Backward(f.ready) {
		f.mu.Lock()
		t := f.tickets[job.id]
		f.mu.Unlock()
		if t == nil {
			continue
		}
		if err := f.back(ctx, ending{id: job.id, owner: t.owner, msg: t.start}); err != nil {
			f.jobs.background("drain", err, "queue", f.queue.Name)
		}
		f.forget(job.id, t)
	}
	f.ready = nil
}

func (f *fetcher) until(wait time.Duration, wake <-chan struct{}) {
	if wake == f.slots.wake[f.index] { // which is told of each slot that is free
		f.waiting(true)
		defer f.waiting(false)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-f.closed:
	}
}

func (f *fetcher) waiting(is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits = is
}

type popReply struct {
	kind  string
	jobs  []popped
	stamp int64
	wait  time.Duration
}

// start is that of each of its jobs, as the limiter has it, or "" where there is none.
func (r popReply) start() string {
	if r.stamp == 0 {
		return ""
	}
	return strconv.FormatInt(r.stamp, 10)
}

// nonce is the owner of what the last pop has brought.
func (f *fetcher) nonce() string { return f.id + ":" + strconv.FormatUint(f.pops, 10) }

// pop runs the pop script for up to n jobs. The script undoes what it did for a call whose answer was lost.
func (f *fetcher) pop(ctx context.Context, keys []string, args []any, n int) (popReply, error) {
	ctx, cancel := context.WithTimeout(ctx, popTimeout)
	defer cancel()
	name := f.queue.Name
	keys = append(keys[:4:4], ownKey(name, "starts"), ownKey(name, "pop:"+f.id), ownKey(name, "limits"), ownKey(name, "throttle"), ownKey(name, "tat"))
	args = []any{args[0], args[1], f.id, n, f.pops, f.known, f.declared}
	var got *redis.Cmd
	if load := f.load(); len(load) > 0 {
		got = f.popWith(ctx, load, keys, args)
	} else {
		got = popScript.Run(ctx, f.jobs.rdb, keys, args...)
	}
	res, err := got.StringSlice()
	if err != nil {
		return popReply{}, err
	}
	return parsePop(res)
}

func parsePop(res []string) (popReply, error) {
	switch {
	case len(res) == 1 && (res[0] == "empty" || res[0] == "paused" || res[0] == "full"):
		return popReply{kind: res[0]}, nil
	case len(res) == 2 && res[0] == "limited":
		us, err := strconv.ParseInt(res[1], 10, 64)
		return popReply{kind: res[0], wait: time.Duration(us) * time.Microsecond}, err
	case len(res) >= 4 && len(res)%2 == 0 && res[0] == "job":
		stamp, err := strconv.ParseInt(res[1], 10, 64)
		reply := popReply{kind: res[0], stamp: stamp}
		for i := 2; i < len(res); i += 2 {
			reply.jobs = append(reply.jobs, popped{res[i], res[i+1]})
		}
		return reply, err
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
