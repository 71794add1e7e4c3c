package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
)

// Who has paused a queue is who resumes it, unless an operator resumes it for everybody.
func TestPauseHasAnOwner(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("owner")
		ctx := t.Context()
		j := newJobs(t, rdb, nil, Queue{Name: q})
		check := func(what string, got bool, err error, want bool) {
			t.Helper()
			if got != want || err != nil {
				t.Errorf("%s: %v, %v, want %v", what, got, err, want)
			}
		}
		got, err := j.Pause(ctx, q, &Hold{Owner: "incident", Reason: "high load", For: time.Hour})
		check("the incident pauses", got, err, true)
		got, err = j.Pause(ctx, q, &Hold{For: time.Minute})
		check("somebody pauses, too, for less", got, err, false)
		if _, err := j.Pause(ctx, q, &Hold{Owner: "deployment"}); !errors.Is(err, ErrHeld) {
			t.Errorf("another owner pauses: %v", err)
		}
		got, err = j.Unpause(ctx, q, "deployment")
		check("another owner resumes", got, err, false)
		s := status(t, j, q)
		if !s.Paused || s.Pause.Owner != "incident" || s.Pause.Reason != "high load" || s.Pause.LeftSeconds == nil || *s.Pause.LeftSeconds < 3500 || s.Pause.Since.IsZero() {
			t.Errorf("the pause reads %+v", s.Pause)
		}
		got, err = j.Unpause(ctx, q, "incident")
		check("the incident resumes", got, err, true)

		// asynq's tools see ours, and we theirs.
		inspector := asynq.NewInspectorFromRedisClient(rdb)
		if err := inspector.PauseQueue(q); err != nil {
			t.Fatal(err)
		}
		got, err = j.Unpause(ctx, q, "incident")
		check("the incident resumes what asynq's tool has paused", got, err, false)
		if s := status(t, j, q); s.Pause == nil || s.Pause.Owner != "" || s.Pause.LeftSeconds != nil {
			t.Errorf("asynq's pause reads %+v", s.Pause)
		}
		held, _, err := j.Resume(ctx, q)
		check("an operator resumes", held, err, true)
		if _, err := j.Pause(ctx, q, &Hold{For: time.Millisecond}); err == nil {
			t.Error("a pause of a millisecond was taken")
		}
		for _, r := range []HoldRequest{{Seconds: -1}, {Seconds: .1}, {Reason: strings.Repeat("x", 2000)}} {
			if _, err := r.hold("test"); err == nil {
				t.Errorf("%+v was taken", r)
			}
		}
	})
}

// A hold that has an end ends by itself, wherever its maker is by then.
func TestPauseEndsByItself(t *testing.T) {
	t.Parallel()
	q := fresh("ends")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	if _, err := j.Pause(t.Context(), q, &Hold{For: time.Second}); err != nil {
		t.Fatal(err)
	}
	ran := make(chan time.Time, 1)
	w := newWorker(t, j, nil)
	Handle(w, func(context.Context, note) error { ran <- time.Now(); return nil })
	began := time.Now()
	start(t, w)
	if took := (<-ran).Sub(began); took < 700*time.Millisecond || took > 5*time.Second {
		t.Errorf("the job ran after %v, the pause is for 1s", took)
	}
}

// A closed queue takes no jobs and runs those that it has; the outbox keeps its rows meanwhile.
func TestClosedQueueTakesNone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("closed")
		ctx := t.Context()
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 3)
		want(t, j, "queue.drain", q, "mode=finish&dry_run=true", map[string]any{"done": "closed", "count": 3.0, "changed": true})
		want(t, j, "queue.drain", q, "mode=finish", map[string]any{"done": "closed", "count": 3.0, "changed": true})
		want(t, j, "queue.close", q, "", map[string]any{"changed": false})
		if _, err := j.Enqueue(ctx, note{}, On(q)); !errors.Is(err, ErrClosed) {
			t.Errorf("Enqueue = %v", err)
		}
		infos, err := j.EnqueueMany(ctx, []Job{note{}, note{}}, On(q))
		if !errors.Is(err, ErrClosed) || !errors.Is(infos[1].Err, ErrClosed) {
			t.Errorf("EnqueueMany = %v, %v", infos, err)
		}
		w := newWorker(t, j, nil)
		var done ledger
		Handle(w, func(_ context.Context, job note) error { done.add(job.N); return nil })
		start(t, w)
		eventually(t, 5*time.Second, "what was there is done", func() bool { s := status(t, j, q); return s.Waiting+s.Active == 0 })
		done.check(t, 3, true)
		want(t, j, "queue.resume", q, "", map[string]any{"changed": true})
		enqueue(t, j, q, 1)
	})
}

func TestPurgeTakesTheStatesItIsGiven(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("purge")
		ctx := t.Context()
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 2, In(time.Hour))
		enqueue(t, j, q, 3, Retention(time.Hour))
		if n, err := j.Park(ctx, q); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		for i := range 4 {
			if _, err := j.Enqueue(ctx, note{N: i}, On(q), Unique(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		for _, bad := range []string{"states=active&confirm=true", "states=,&confirm=true", "states=waiting"} {
			_, err := call(t, j, "queue.drain", q, "mode=discard&"+bad)
			if p, ok := errors.AsType[*admin.Problem](err); !ok || p.Status != 400 {
				t.Errorf("%s: %v", bad, err)
			}
		}
		want(t, j, "queue.drain", q, "mode=discard&states=delayed,parked&dry_run=true", map[string]any{"count": 5.0})
		want(t, j, "queue.drain", q, "mode=discard&states=delayed,parked&confirm=true", map[string]any{"count": 5.0, "changed": true})
		if s := status(t, j, q); s.Delayed+s.Parked != 0 || s.Waiting != 4 {
			t.Errorf("it left %+v", s)
		}
		want(t, j, "queue.drain", q, "mode=discard&confirm=true", map[string]any{"count": 4.0})
		if keys := keysOf(t, rdb, q); len(keys) > 1 { // what announces a state, and no lock
			for _, key := range keys {
				if strings.Contains(key, ":t:") || strings.Contains(key, ":unique:") {
					t.Errorf("purge left %s", key)
				}
			}
		}
		if n, err := j.Purge(ctx, q); err == nil {
			t.Errorf("Purge of no state = %d", n)
		}
	})
}

// A pause of asynq's tools, after they have undone one of ours, is nobody's: what was said of ours does not hold for theirs.
func TestPauseOfAsynqIsNobodys(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, q := t.Context(), fresh("stale")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1)
		if _, err := j.Pause(ctx, q, &Hold{Owner: "incident", Reason: "high load"}); err != nil {
			t.Fatal(err)
		}
		if s := status(t, j, q); s.Pause == nil || s.Pause.Owner != "incident" || s.Pause.Reason != "high load" || s.Pause.Since.IsZero() {
			t.Errorf("our pause reads %+v", s.Pause)
		}
		if err := errors.Join(j.asynq.UnpauseQueue(q), j.asynq.PauseQueue(q)); err != nil {
			t.Fatal(err)
		}
		if s := status(t, j, q); s.Pause == nil || s.Pause.Owner != "" || s.Pause.Reason != "" || !s.Pause.Since.IsZero() {
			t.Errorf("asynq's pause reads %+v", s.Pause)
		}
		if _, err := j.Pause(ctx, q, &Hold{Owner: "incident"}); !errors.Is(err, ErrHeld) {
			t.Errorf("the incident takes asynq's pause over: %v", err)
		}
		if got, err := j.Unpause(ctx, q, "incident"); got || err != nil {
			t.Errorf("the incident has ended asynq's pause: %v, %v", got, err)
		}
		if got, err := j.Unpause(ctx, q, ""); !got || err != nil {
			t.Errorf("anybody may end it: %v, %v", got, err)
		}
	})
}

// What is stopped over HTTP is the caller's, and anybody may start it again there.
func TestHoldsOfOperationsAreTheCallers(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("actor")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	owners := func(pause, closed string) {
		t.Helper()
		s := status(t, j, q)
		for _, c := range []struct {
			got  *Held
			want string
		}{{s.Pause, pause}, {s.Closed, closed}} {
			if (c.got == nil) != (c.want == "") || c.got != nil && c.got.Owner != c.want {
				t.Errorf("%+v holds, want %q", c.got, c.want)
			}
		}
	}
	want(t, j, "queue.pause", q, "", map[string]any{"changed": true})
	want(t, j, "queue.pause", q, "", map[string]any{"changed": false})
	want(t, j, "queue.drain", q, "mode=finish", map[string]any{"changed": true})
	owners("test", "test")
	want(t, j, "queue.resume", q, "", map[string]any{"changed": true})
	owners("", "")
	want(t, j, "queue.close", q, "", map[string]any{"changed": true})
	owners("", "test")
	if _, err := j.Pause(t.Context(), q, &Hold{Owner: "incident"}); err != nil {
		t.Fatal(err)
	}
	want(t, j, "queue.pause", q, "", map[string]any{"changed": false})
	owners("incident", "test")
	want(t, j, "queue.resume", q, "", map[string]any{"changed": true})
	owners("", "")
	if owner := ownerOfCall(strings.Repeat("é", maxOwner)); len(owner) != maxOwner {
		t.Errorf("a long name is cut to %d bytes", len(owner))
	}
}

// Another owner's hold that ends before the one that is asked for is none: whoever asks must not take the queue for stopped.
func TestHoldOfAnotherThatEndsSoonerIsNoSuccess(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("sooner")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	hold := &Hold{Owner: "incident", For: time.Minute}
	for stop, operations := range map[string][][2]string{
		"pause": {{"queue.pause", ""}, {"queue.pause", "dry_run=true"}},
		"close": {{"queue.close", ""}, {"queue.close", "dry_run=true"}, {"queue.drain", "mode=finish"}, {"queue.drain", "mode=finish&dry_run=true"}},
	} {
		do := map[string]func(context.Context, string, *Hold) (bool, error){"pause": j.Pause, "close": j.Close}[stop]
		if _, err := do(t.Context(), q, hold); err != nil {
			t.Fatal(err)
		}
		for _, op := range operations {
			reply, err := call(t, j, op[0], q, op[1])
			if p, ok := errors.AsType[*admin.Problem](err); !ok || p.Status != 409 || !strings.Contains(p.Detail, "release it first: incident, for ") {
				t.Errorf("%s?%s without an end: %v, %v", op[0], op[1], reply, err)
			}
		}
		for _, other := range []*Hold{nil, {Owner: "deployment"}, {For: time.Hour}, {Owner: "deployment", For: 61 * time.Second}} {
			if changed, err := do(t.Context(), q, other); !errors.Is(err, ErrHeld) {
				t.Errorf("%s for another, %+v: %v, %v", stop, other, changed, err)
			}
		}
		if changed, err := do(t.Context(), q, &Hold{For: 30 * time.Second}); changed || err != nil {
			t.Errorf("%s for less: %v, %v", stop, changed, err)
		}
	}
	if s := status(t, j, q); s.Pause == nil || s.Closed == nil || s.Pause.Owner != "incident" || s.Closed.Owner != "incident" || s.Pause.LeftSeconds == nil {
		t.Errorf("afterwards %+v and %+v hold", s.Pause, s.Closed)
	}
}

// On a Redis that is full a queue can be held back and given other limits, which is how it comes to have room.
func TestFullRedisIsOperated(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), client(t, alone(t).Addrs())
	limits := Limits{Rate: Rate{Max: 7, Per: time.Second}, Smooth: true, Concurrency: 3}
	for name, c := range map[string]struct {
		do   func(j *Jobs, q string) error
		done func(s Status) bool
	}{
		"pause": {
			func(j *Jobs, q string) error {
				_, err := j.Pause(ctx, q, &Hold{Owner: "o", For: time.Hour})
				return err
			},
			func(s Status) bool { return s.Pause != nil && s.Pause.Owner == "o" && s.Pause.LeftSeconds != nil },
		},
		"close": {
			func(j *Jobs, q string) error { _, err := j.Close(ctx, q, &Hold{Owner: "o"}); return err },
			func(s Status) bool { return s.Closed != nil && s.Closed.Owner == "o" && s.Closed.LeftSeconds == nil },
		},
		"throttle": {
			func(j *Jobs, q string) error { return j.Throttle(ctx, q, time.Hour) },
			func(s Status) bool { return s.ThrottledSeconds != nil && *s.ThrottledSeconds > 3000 },
		},
		"set the limits": {
			func(j *Jobs, q string) error { return j.SetLimits(ctx, q, limits) },
			func(s Status) bool {
				return s.RateLimit != nil && s.RateLimit.Max == 7 && s.RateLimit.Smooth && !s.RateLimit.Declared && *s.ConcurrencyLimit == 3
			},
		},
		"reset the limits": {
			func(j *Jobs, q string) error { return j.ResetLimits(ctx, q) },
			func(s Status) bool { return s.RateLimit != nil && s.RateLimit.Max == 2 && s.RateLimit.Declared },
		},
	} {
		t.Run(name, func(t *testing.T) {
			q := fresh("full")
			j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 2, Per: time.Hour}})
			enqueue(t, j, q, 1)
			defer full(t, rdb)()
			for range 2 { // for the first time, and once it is so
				if err := c.do(j, q); err != nil {
					t.Error(err)
				}
				if s := status(t, j, q); !c.done(s) {
					t.Errorf("%+v", s)
				}
			}
			if name == "reset the limits" && rdb.HLen(ctx, ownKey(q, "limits")).Val() == 0 {
				t.Error("the declared limits are not stored")
			}
		})
	}
}
