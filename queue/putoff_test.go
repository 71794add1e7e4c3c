package queue

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// taken gives the one running job of a queue to living workers, as the reaper of another worker does.
func taken(t *testing.T, j *Jobs, q string) {
	t.Helper()
	leases := j.rdb.ZRangeWithScores(t.Context(), asynqKey(q, "lease"), 0, -1).Val()
	if len(leases) != 1 {
		t.Fatalf("%d leases", len(leases))
	}
	other := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
	if err := other.reap(t.Context(), leases[0].Member.(string), formatScore(leases[0])); err != nil {
		t.Fatal(err)
	}
}

// A job that was taken from its worker and comes to it again waits until its first run has returned: that keeps its slot, which
// read-only mode counts, and its end is not that of the second.
func TestSecondRunWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	q := fresh("second")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 1, MaxRetry(1))
	w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return time.Hour }})
	var runs atomic.Int64
	began, first, second := make(chan struct{}, 10), make(chan struct{}), make(chan struct{})
	Handle(w, func(context.Context, note) error {
		run := runs.Add(1)
		began <- struct{}{}
		if run == 1 {
			<-first
			return errors.New("the first run has failed")
		}
		<-second
		return nil
	})
	start(t, w)
	<-began
	taken(t, j, q)
	eventually(t, 20*time.Second, "it came and was put off", func() bool { return runs.Load() > 1 || status(t, j, q).Retrying == 1 })
	if w.Writing() == 0 || w.Busy() == 0 || runs.Load() != 1 { // more while a fetch is under way
		t.Errorf("Writing is %d and Busy %d while the first of %d runs goes on", w.Writing(), w.Busy(), runs.Load())
	}
	close(first)
	eventually(t, 20*time.Second, "the first run's slot is free", func() bool { return w.Busy() == 0 || runs.Load() > 1 })
	<-began
	if s := status(t, j, q); s.Active != 1 || s.Retrying != 0 {
		t.Errorf("the second run was ended by the first: %+v", s)
	}
	close(second)
	eventually(t, 20*time.Second, "it is done", func() bool { s := status(t, j, q); return s.Waiting+s.Active+s.Retrying == 0 })
	if s := status(t, j, q); s.Failed != 0 || runs.Load() != 2 {
		t.Errorf("%d runs: %+v", runs.Load(), s)
	}
}

// While the end of a run is in doubt and its job is there again, it does not come to the same worker: asynq keeps heartbeats by ID, and
// the end of the first run would take that of the second.
func TestSecondRunWaitsForTheEndOfTheFirst(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	if err := endScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	q := fresh("doubt")
	var runs atomic.Int64
	var back atomic.Bool
	j := newJobs(t, deaf{rdb, func(keys []string, args []any) bool { // the answers to the first end are lost until its job came again
		if len(keys) == 10 && slices.Contains(args, any("back")) {
			back.Store(true)
		}
		return len(keys) == 10 && slices.Contains(args, any("retry")) && !back.Load() && runs.Load() == 1
	}, nil}, nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return time.Millisecond }})
	Handle(w, func(context.Context, note) error {
		if runs.Add(1) == 1 {
			return errors.New("again")
		}
		if !back.Load() {
			t.Error("the job runs again while its first run is to end")
		}
		return nil
	})
	start(t, w)
	eventually(t, 20*time.Second, "it is done", func() bool { s := status(t, j, q); return runs.Load() > 1 && s.Waiting+s.Active+s.Retrying == 0 })
	if runs.Load() != 2 || !back.Load() {
		t.Errorf("%d runs, the second was put off: %v", runs.Load(), back.Load())
	}
}

// Just after the end of a run is recorded asynq does not know yet that it has ended.
func TestEndedRunLeavesFirst(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, ago := range map[string]time.Duration{"just now": -10 * time.Second, "some time ago": leaving} { // a slow machine is no matter
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := fresh("leaves")
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 1)
			f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
			keys, args := fetching(q)
			if err := f.fetch(t.Context(), keys, args).Err(); err != nil {
				t.Fatal(err)
			}
			id := rdb.LIndex(t.Context(), asynqKey(q, "active"), 0).Val()
			back := []string{asynqKey(q, "active"), asynqKey(q, "lease"), asynqKey(q, "pending"), taskPrefix(q) + id}
			if err := f.EvalSha(t.Context(), "", back, id).Err(); err != nil {
				t.Fatal(err)
			}
			if _, ok := f.left[id]; !ok {
				t.Error("its end is not remembered")
			}
			f.left[id] = time.Now().Add(-ago)
			err := f.fetch(t.Context(), keys, args).Err()
			s, comes := status(t, j, q), ago > 0
			if comes && (err != nil || s.Active != 1) || !comes && (!isNil(err) || s.Retrying != 1 || f.slots.busy() != 0) {
				t.Errorf("fetch = %v: %+v, %d slots are taken", err, s, f.slots.busy())
			}
			f.sweep(time.Now().Add(time.Hour))
			if len(f.left) != 0 || len(f.tickets) != 0 || f.slots.busy() != 0 || f.handed.Load() != 0 {
				t.Errorf("%d and %d are remembered, %d slots are taken", len(f.left), len(f.tickets), f.slots.busy())
			}
		})
	}
}

// A job goes back at once, with its start, also when the connection breaks over that before Redis has heard of it.
func TestUnstartedJobsGoBackOverABrokenConnection(t *testing.T) {
	t.Parallel()
	onBothCut(t, "$4\r\nback\r\n", func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
		q := fresh("unheard")
		rdb.mute = true
		rdb.armed.Store(true)
		j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q, Rate: Rate{Max: 3, Per: time.Hour}})
		enqueue(t, j, q, 3)
		f := newFetcher(j, j.queues[0], 0, newSlots(9, j.queues), 9, time.Millisecond, nil)
		keys, args := fetching(q)
		refill := func() {
			t.Helper()
			if f.refill(t.Context(), keys, args); len(f.ready) == 0 {
				t.Fatal("no jobs are ready")
			}
		}
		check := func(what string, waiting, retrying int) {
			t.Helper()
			starts := plain.LLen(t.Context(), ownKey(q, "starts")).Val()
			if s := status(t, j, q); rdb.sent.Load() < 2 || s.Waiting != waiting || s.Retrying != retrying || s.Active != 3-waiting-retrying || starts != int64(s.Active) {
				t.Errorf("%s: sent %d times, %d starts are counted: %+v", what, rdb.sent.Load(), starts, s)
			}
		}
		refill()
		f.unready()
		check("returned", 3, 0)

		refill()
		first := f.ready[0].id
		f.unready()
		f.left[first] = time.Now().Add(time.Hour)
		rdb.sent.Store(0)
		refill()
		check("put off", 0, 1)
	})
}

// Jobs that are put off, or returned before they start, give their starts back, each once; those that are another worker's by then
// give nothing back.
func TestUnusedStartsAreGivenBack(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("unused")
		j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 3, Per: time.Hour}})
		enqueue(t, j, q, 3)
		f := newFetcher(j, j.queues[0], 0, newSlots(9, j.queues), 9, time.Millisecond, nil)
		keys, args := fetching(q)
		starts := func() int { return int(rdb.LLen(t.Context(), ownKey(q, "starts")).Val()) }
		refill := func(want int) {
			t.Helper()
			if f.refill(t.Context(), keys, args); len(f.ready) != want {
				t.Fatalf("%d jobs are ready, want %d", len(f.ready), want)
			}
		}
		refill(3)
		owner, stamp := f.nonce(), f.tickets[f.ready[0].id].start
		if starts() != 3 || stamp == "" {
			t.Fatalf("%d starts are counted, one of %q", starts(), stamp)
		}
		f.unready()
		if s := status(t, j, q); s.Waiting != 3 || starts() != 0 {
			t.Errorf("returned unstarted: %d starts are counted: %+v", starts(), s)
		}

		refill(3)
		first, second := f.ready[0].id, f.ready[1].id
		f.unready()
		f.left[first], f.left[second] = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
		refill(1)
		if s := status(t, j, q); s.Active != 1 || s.Retrying != 2 || starts() != 1 {
			t.Errorf("put off: %d starts are counted: %+v", starts(), s)
		}
		for _, x := range []ending{
			{verb: "back", id: first, owner: f.nonce(), msg: f.tickets[f.ready[0].id].start},     // said again
			{verb: "back", id: f.ready[0].id, owner: owner, msg: f.tickets[f.ready[0].id].start}, // of another pop
		} {
			if reply, err := f.ender.end(t.Context(), x); reply != "NOT FOUND" || err != nil || starts() != 1 {
				t.Errorf("%+v: %q, %v; %d starts are counted", x, reply, err, starts())
			}
		}

		for _, id := range []string{first, second} {
			if err := j.asynq.RunTask(q, id); err != nil {
				t.Fatal(err)
			}
			delete(f.left, id)
		}
		f.ready = nil
		if refill(2); starts() != 3 {
			t.Errorf("%d starts are counted after those that were put off have come", starts())
		}
		rdb.HSet(t.Context(), taskPrefix(q)+second, "owner", "other")
		if f.unready(); starts() != 2 {
			t.Errorf("%d starts are counted, want those of one that is handed and of one that is another worker's", starts())
		}
	})
}

// So is that of a job whose kind the worker does not know.
func TestUnknownKindUsesNoStart(t *testing.T) {
	t.Parallel()
	q, rdb := fresh("unknown"), client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 2, Per: time.Hour}})
	enqueue(t, j, q, 2)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2, Replicas: new(lagging)})
	Handle(w, func(context.Context, patient) error { return nil })
	start(t, w)
	eventually(t, 10*time.Second, "both wait for a worker that knows them", func() bool { return status(t, j, q).Retrying == 2 })
	if n := rdb.LLen(t.Context(), ownKey(q, "starts")).Val(); n != 0 {
		t.Errorf("%d starts are counted of jobs that nothing here can run", n)
	}
}

// A handler that never returns keeps its slot, and its job from running here until its time is up, not for ever.
func TestHungRunIsForgotten(t *testing.T) {
	t.Parallel()
	q := fresh("hung")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
	f.slots.take(0, 1)
	f.handed.Add(1)
	now := time.Now()
	f.tickets["id"] = &ticket{since: now}
	run, _ := f.begin("id", now.Add(time.Hour))
	f.sweep(now.Add(time.Hour))
	if f.here(f.tickets["id"], "id", now.Add(time.Hour)) == 0 {
		t.Error("it was forgotten before its time was up")
	}
	f.sweep(now.Add(2 * time.Hour))
	if f.tickets["id"] != nil || f.handed.Load() != 0 || f.slots.busy() != 1 {
		t.Errorf("it is remembered, or %d slots are taken, want its own", f.slots.busy())
	}
	f.end("id", run, false)
	if f.slots.busy() != 0 {
		t.Error("its slot is lost")
	}
}
