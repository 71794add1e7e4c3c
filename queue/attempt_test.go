package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestProgressAndResult(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := fresh("progress")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		if _, err := j.Enqueue(ctx, note{N: 1}, ID("long"), Retention(time.Hour), MaxRetry(5), Header("who", "me")); err != nil {
			t.Fatal(err)
		}
		half, finish := make(chan struct{}), make(chan struct{})
		w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return 0 }})
		Handle(w, func(ctx context.Context, _ note) error {
			a := AttemptFrom(ctx)
			if a == nil || a.ID != "long" || a.Queue != q || a.MaxRetry != 5 || a.Headers["who"] != "me" {
				t.Errorf("the attempt is %+v", a)
			}
			if a.Number == 1 {
				return errors.New("not yet")
			}
			if err := a.SetProgress(ctx, map[string]int{"percent": 50}); err != nil {
				t.Error(err)
			}
			close(half)
			<-finish
			if err := a.SetProgress(ctx, strings.Repeat("x", maxNote)); err == nil {
				t.Error("progress of 64 KiB and more was taken")
			}
			return a.SetResult(ctx, "done")
		})
		start(t, w)
		<-half
		x, err := j.Explain(ctx, q, "long")
		if err != nil || x.State != "running" || x.Progress != `{"percent":50}` || x.Retried != 1 || x.Error != "not yet" || x.Why != "it runs" {
			t.Errorf("while it runs: %+v, %v", x, err)
		}
		close(finish)
		eventually(t, 20*time.Second, "it is done", func() bool {
			x, err := j.Explain(ctx, q, "long")
			return err == nil && x.State == "completed" && x.Result == `"done"`
		})
		if AttemptFrom(ctx) != nil {
			t.Error("there is an attempt outside of a handler")
		}
	})
}

// lives lets the queue have a worker, as far as its tools know, for an hour.
func lives(t *testing.T, rdb redis.UniversalClient, queue string, slots int) {
	t.Helper()
	if err := crewScript.Run(t.Context(), rdb, []string{crewKey(queue)}, "test", slots, time.Hour.Milliseconds(), false).Err(); err != nil {
		t.Fatal(err)
	}
}

// A job whose worker is gone is said to come back when somebody lives that brings it.
func TestExplainOrphan(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("orphan")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	info, err := j.Enqueue(t.Context(), note{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rdb.LMove(t.Context(), asynqKey(q, "pending"), asynqKey(q, "active"), "RIGHT", "LEFT").Err(),
		rdb.HSet(t.Context(), taskPrefix(q)+info.ID, "state", "active").Err()); err != nil {
		t.Fatal(err)
	}
	for _, why := range []string{"no other one lives that would bring it back", "it goes back to its queue within about 20 seconds"} {
		x, err := j.Explain(t.Context(), q, info.ID)
		if err != nil || x.State != "running" || !strings.Contains(x.Why, why) {
			t.Errorf("Explain = %+v, %v; want %q", x, err, why)
		}
		lives(t, rdb, q, 1)
	}
}

// Workers that live and start nothing are no promise.
func TestExplainIdleWorkers(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	free, limited := fresh("idle"), fresh("idlelimited")
	j := newJobs(t, rdb, nil, Queue{Name: free}, Queue{Name: limited, Rate: Rate{Max: 1, Per: time.Second}})
	for _, q := range []string{free, limited} {
		says := func(slots int, age time.Duration, why string) {
			t.Helper()
			lives(t, rdb, q, slots)
			if err := rdb.HSet(t.Context(), taskPrefix(q)+"0", "pending_since", time.Now().Add(-age).UnixNano()).Err(); err != nil {
				t.Fatal(err)
			}
			x, err := j.Explain(t.Context(), q, "1")
			if err != nil || !strings.HasPrefix(x.Why, why) || x.Ahead == nil || *x.Ahead != 1 || (x.StartsInSeconds != nil) != strings.Contains(x.Why, "in 1 seconds") {
				t.Errorf("%s, %d slots, waiting for %v: %+v, %v; want %q", q, slots, age, x, err, why)
			}
		}
		for _, id := range []string{"0", "1"} {
			if _, err := j.Enqueue(t.Context(), note{}, On(q), ID(id)); err != nil {
				t.Fatal(err)
			}
		}
		says(0, 0, "the workers that live have no slots")
		says(0, time.Hour, "the workers that live have no slots")
		says(5, time.Hour, "workers live, and none has started a job of the queue lately: their slots may be taken by other queues")
		says(5, 0, "1 jobs are ahead of it")
		ran := newRunLog()
		ran.add(q, "done", time.Microsecond)
		if err := ran.flush(t.Context(), rdb); err != nil {
			t.Fatal(err)
		}
		says(5, time.Hour, "1 jobs are ahead of it") // short ones have run, and no look sees them
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := fresh("explain")
		gate := new(switchGate)
		j := newJobs(t, rdb, &Options{Gate: gate}, Queue{Name: q, Rate: Rate{Max: 2, Per: 10 * time.Second}})
		add := func(id string, opts ...Option) {
			if _, err := j.Enqueue(ctx, note{}, append(opts, ID(id))...); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"first", "second", "third"} {
			add(id)
		}
		add("later", In(time.Hour))
		says := func(id, state, why string) *Explanation {
			t.Helper()
			x, err := j.Explain(ctx, q, id)
			if err != nil || x.State != state || !strings.Contains(x.Why, why) {
				t.Errorf("Explain of %s = %+v, %v; want %s, %q", id, x, err, state, why)
			}
			return x
		}
		if x := says("third", "waiting", "no worker lives"); x.Ahead == nil || *x.Ahead != 2 || x.StartsInSeconds != nil {
			t.Errorf("third, without a worker: %+v", x)
		}
		if _, err := j.Pause(ctx, q, &Hold{Owner: "incident", For: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if x := says("third", "waiting", "no worker lives that takes jobs of the queue, and it is paused by incident"); x.StartsInSeconds != nil {
			t.Errorf("third, paused, without a worker: %+v", x)
		}
		if _, _, err := j.Resume(ctx, q); err != nil {
			t.Fatal(err)
		}
		lives(t, rdb, q, 10)
		if x := says("third", "waiting", "2 jobs are ahead of it and the queue starts 2 in 10 seconds"); x.Ahead == nil || *x.Ahead != 2 || x.StartsInSeconds == nil || *x.StartsInSeconds != 15 {
			t.Errorf("third: %+v", x)
		}
		if x := says("later", "delayed", "its time comes at"); x.StartsInSeconds == nil || *x.StartsInSeconds < 3500 {
			t.Errorf("later: %+v", x)
		}
		gate.closed.Store(true)
		says("first", "waiting", "writes are off")
		gate.closed.Store(false)
		if _, err := j.Pause(ctx, q, &Hold{Owner: "incident", Reason: "high load", For: time.Hour}); err != nil {
			t.Fatal(err)
		}
		const slow = 60 // seconds that may pass meanwhile
		if x := says("first", "waiting", " more seconds by incident: high load"); !strings.HasPrefix(x.Why, "the queue is paused for 3") || x.StartsInSeconds == nil || *x.StartsInSeconds < 3600-slow || *x.StartsInSeconds > 3600 {
			t.Errorf("while paused: %+v", x)
		}
		if _, _, err := j.Resume(ctx, q); err != nil {
			t.Fatal(err)
		}
		if err := j.Throttle(ctx, q, time.Hour); err != nil {
			t.Fatal(err)
		}
		if x := says("first", "waiting", "throttled for 3"); x.StartsInSeconds == nil || *x.StartsInSeconds < 3600-slow || *x.StartsInSeconds > 3600 {
			t.Errorf("while throttled: %+v", x)
		}
		if _, err := j.Park(ctx, q); err != nil {
			t.Fatal(err)
		}
		says("first", "parked", "resume brings it back")
		if _, err := j.Explain(ctx, q, "nobody"); !errors.Is(err, ErrNoJob) {
			t.Errorf("Explain of nobody = %v", err)
		}
		if _, err := j.Explain(ctx, "no-such-queue", "first"); !errors.Is(err, ErrUnknownQueue) {
			t.Errorf("Explain in no queue = %v", err)
		}
	})
}
