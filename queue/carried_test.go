package queue

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// awaitsSlot reports whether f waits for a slot, so that it takes along what frees one.
func awaitsSlot(f *fetcher) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waits
}

// trips counts the scripts that end a job: those that travel with another one, and those that come by themselves.
type trips struct{ together, alone atomic.Int64 }

func (*trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (n *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ends(cmd) {
			n.alone.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (n *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) == 2 && ends(cmds[0]) && cmds[1].Args()[1] == popScript.Hash() {
			n.together.Add(1)
		}
		return next(ctx, cmds)
	}
}

func ends(cmd redis.Cmder) bool {
	args := cmd.Args()
	return len(args) > 1 && (args[1] == doneScript.Hash() || args[1] == endScript.Hash())
}

// With one slot a job's end and the next fetch are one round trip.
func TestEndTravelsWithTheNextFetch(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("carried")
	const n = 20
	enqueue(t, newJobs(t, rdb, nil, Queue{Name: q}), q, n)
	counted := client(t, single.Get(t).Addrs())
	var count trips
	counted.AddHook(&count)
	w := newWorker(t, newJobs(t, counted, nil, Queue{Name: q}), &WorkerOptions{Concurrency: 1, MaxConcurrency: 1})
	var f *fetcher
	w.expose = func(its *fetcher) redis.UniversalClient { f = its; return its }
	var done ledger
	Handle(w, func(_ context.Context, job note) error {
		eventually(t, 10*time.Second, "it waits for the slot", func() bool { return awaitsSlot(f) })
		done.add(job.N)
		return nil
	})
	stop := start(t, w)
	eventually(t, 20*time.Second, "all are done", func() bool { return rdb.Get(t.Context(), asynqKey(q, "processed")).Val() == "20" })
	stop()
	done.check(t, n, true)
	if together, alone := count.together.Load(), count.alone.Load(); together != n || alone != 0 {
		t.Errorf("%d ends came with a fetch and %d by themselves, want %d and 0", together, alone, n)
	}
}

// An end that was to travel with a fetch is recorded at once, too, when there is none.
func TestCarriedEndNeedsNoFetch(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, then := range map[string]func(w *Worker, f *fetcher, gate *switchGate){
		"no slot is left": func(w *Worker, _ *fetcher, _ *switchGate) { _ = w.Resize(0) },
		"the gate closes": func(_ *Worker, _ *fetcher, gate *switchGate) { gate.closed.Store(true) },
		"it stops":        func(_ *Worker, f *fetcher, _ *switchGate) { close(f.closed) },
	} {
		t.Run(name, func(t *testing.T) {
			q, gate := fresh("nofetch"), new(switchGate)
			j := newJobs(t, rdb, &Options{Gate: gate}, Queue{Name: q})
			enqueue(t, j, q, 2)
			w := newWorker(t, j, &WorkerOptions{Concurrency: 1, MaxConcurrency: 1})
			f := newFetcher(j, j.queues[0], 0, w.slots, 1+unended, time.Millisecond, nil)
			keys, args := fetching(q)
			if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
				t.Fatal(err)
			}
			id := rdb.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
			run, _ := f.begin(id, time.Now().Add(time.Minute))
			fetched := make(chan *redis.Cmd, 1)
			go func() { fetched <- f.fetch(t.Context(), keys, args) }()
			eventually(t, 10*time.Second, "it waits for the slot", func() bool { return awaitsSlot(f) })
			f.mu.Lock() // until it has its end
			then(w, f, gate)
			run.returned = true
			f.carry(id, run)
			f.free(run)
			f.mu.Unlock()
			doneKeys, doneArgs := asynqDone(q, id)
			if err := f.finish(t.Context(), doneKeys, doneArgs, nil).Err(); err != nil || run.carried == nil {
				t.Errorf("the end: %v, carried %v", err, run.carried)
			}
			if err := (<-fetched).Err(); !isNil(err) {
				t.Errorf("something was fetched: %v", err)
			}
			if s := status(t, j, q); s.Active != 0 || s.Waiting != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A job that is done is done, though its time was up just then, so that asynq takes it for failed. Redis need not know the scripts.
func TestCarriedEndStands(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := client(t, server.Addrs()), fresh("stands")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 2)
	f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1+unended, time.Millisecond, nil)
	keys, args := fetching(q)
	if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
		t.Fatal(err)
	}
	id := rdb.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
	run, _ := f.begin(id, time.Now().Add(time.Minute))
	f.waiting(true)
	f.end(id, run, true)
	f.waiting(false)
	rdb.ScriptFlush(t.Context())
	if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
		t.Errorf("the next one does not come: %v", err)
	}
	if f.pops != 2 {
		t.Errorf("two jobs took %d fetches", f.pops)
	}
	failedKeys, failedArgs := failing(q, id, "its time is up")
	if err := f.finish(t.Context(), failedKeys, failedArgs, nil).Err(); err != nil {
		t.Error(err)
	}
	if s := status(t, j, q); s.Active != 1 || s.Waiting != 0 || s.Retrying != 0 || f.tickets[id] != nil {
		t.Errorf("%+v", s)
	}
	if at, back := f.left[id]; back {
		t.Errorf("it is said to come back, since %v", at)
	}
	if n := rdb.Get(t.Context(), asynqKey(q, "processed")).Val(); n != "1" || rdb.Exists(t.Context(), taskPrefix(q)+id).Val() != 0 {
		t.Errorf("%q are done, its data %d", n, rdb.Exists(t.Context(), taskPrefix(q)+id).Val())
	}
}

// A carried end whose answer was lost is no late one: Redis has heard it.
func TestLostCarriedEndIsNotLate(t *testing.T) {
	t.Parallel()
	onBothCut(t, doneScript.Hash(), func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
		q := fresh("lost-carried")
		j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
		enqueue(t, j, q, 2)
		f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1+unended, time.Millisecond, nil)
		keys, args := fetching(q)
		if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
			t.Fatal(err)
		}
		id := plain.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
		run, _ := f.begin(id, time.Now().Add(time.Minute))
		f.waiting(true)
		f.end(id, run, true)
		f.waiting(false)
		rdb.armed.Store(true)
		f.refill(t.Context(), keys, args)
		rdb.armed.Store(false)
		doneKeys, doneArgs := asynqDone(q, id)
		if err := f.finish(t.Context(), doneKeys, doneArgs, nil).Err(); err != nil {
			t.Error(err)
		}
		if late := testutil.ToFloat64(j.meters.background.WithLabelValues("queue", "late end")); late != 0 || run.carried == nil || rdb.sent.Load() != 1 {
			t.Errorf("%v late ends, carried %v, sent %d times", late, run.carried, rdb.sent.Load())
		}
		if n := plain.Get(t.Context(), asynqKey(q, "processed")).Val(); n != "1" {
			t.Errorf("%q are done", n)
		}
	})
}

// A ticket whose end was carried, and which asynq has not asked for, is not kept for ever.
func TestCarriedTicketIsSwept(t *testing.T) {
	t.Parallel()
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: "swept"})
	f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1+unended, time.Millisecond, nil)
	f.note(popReply{jobs: []popped{{id: "id"}}}, time.Now())
	run, _ := f.begin("id", time.Now().Add(time.Minute))
	f.waiting(true)
	f.end("id", run, true)
	if f.sweep(time.Now()); len(f.tickets) != 1 {
		t.Errorf("%d tickets at once, want it kept", len(f.tickets))
	}
	if f.sweep(time.Now().Add(2 * time.Minute)); len(f.tickets) != 0 {
		t.Errorf("%d tickets after two minutes, want none", len(f.tickets))
	}
}

// asynqDone are the keys and arguments of asynq's script for a job that is done.
func asynqDone(q, id string) (keys []string, args []any) {
	keys = []string{asynqKey(q, "active"), asynqKey(q, "lease"), taskPrefix(q) + id, asynqKey(q, "processed:2026-01-01"), asynqKey(q, "processed")}
	return keys, []any{id, int64(1 << 40), int64(1 << 60)}
}

// A job that is kept when it is done is asynq's to end: its message changes.
func TestRetainedEndIsNotCarried(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("retained")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1, Retention(time.Hour))
	f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1+unended, time.Millisecond, nil)
	keys, args := fetching(q)
	if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
		t.Fatal(err)
	}
	id := rdb.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
	run, _ := f.begin(id, time.Now().Add(time.Minute))
	f.waiting(true)
	f.end(id, run, true)
	f.waiting(false)
	if run.carried != nil || run.ending {
		t.Error("it would be deleted")
	}
}

// With more slots than one ends share calls of their own.
func TestEndsOfManySlotsAreNotCarried(t *testing.T) {
	t.Parallel()
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: "many"})
	f := newFetcher(j, j.queues[0], 0, newSlots(2, j.queues), 2+unended, time.Millisecond, nil)
	f.note(popReply{jobs: []popped{{id: "id"}}}, time.Now())
	run, _ := f.begin("id", time.Now().Add(time.Minute))
	f.waiting(true)
	f.end("id", run, true)
	if run.carried != nil {
		t.Error("it was carried")
	}
}
