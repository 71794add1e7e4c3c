package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"
)

func TestLastDue(t *testing.T) {
	t.Parallel()
	hourly, err := cron.ParseStandard("0 * * * *")
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) time.Time { v, _ := time.Parse("15:04", text); return v }
	for _, c := range []struct{ from, now, want string }{
		{"10:00", "10:59", ""}, {"10:00", "11:00", "11:00"}, {"10:00", "13:30", "13:00"}, {"10:30", "10:31", ""},
	} {
		var want time.Time
		if c.want != "" {
			want = at(c.want)
		}
		if got := lastDue(hourly, at(c.from), at(c.now), time.Hour); !got.Equal(want) {
			t.Errorf("from %s to %s: %v, want %v", c.from, c.now, got, want)
		}
	}
}

// Several processes enqueue periodic jobs as one would, whoever leads, and what was missed comes once.
func TestPeriodicOnceForTheFleet(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("periodic")
	p := Periodic{Name: q, Spec: "@every 1s", Job: note{}, Options: []Option{On(q)}}
	fleet := make([]*Jobs, 3)
	for i := range fleet {
		fleet[i] = newJobs(t, rdb, nil, Queue{Name: q})
		if err := fleet[i].Every(p); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	begin := time.Unix(1_800_000_000, 0)
	// All of them believe that they lead, and each sees each second.
	last := make([]time.Time, len(fleet))
	for second := range 20 {
		for i, j := range fleet {
			if i == second%3 {
				continue // one is away now and then, and must not catch up what the others did
			}
			var err error
			if last[i], err = j.catchUp(ctx, j.crons[0], last[i], begin.Add(time.Duration(second)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s := status(t, fleet[0], q); s.Waiting != 19 { // the first sets the beginning
		t.Errorf("%d jobs in 19 seconds", s.Waiting)
	}
	// A fleet that was away for a minute gets the last of those it missed.
	if _, err := fleet[1].catchUp(ctx, fleet[1].crons[0], time.Time{}, begin.Add(80*time.Second)); err != nil {
		t.Fatal(err)
	}
	if s := status(t, fleet[0], q); s.Waiting != 20 {
		t.Errorf("%d jobs after a minute away, want one more than 19", s.Waiting)
	}
}

// The times of @every are counted from the last one, however short the grace is.
func TestEveryLongerThanGrace(t *testing.T) {
	t.Parallel()
	q := fresh("every")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	if err := j.Every(Periodic{Name: q, Spec: "@every 2h", Job: note{}, Options: []Option{On(q)}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Unix(1_800_000_000, 0)
	var last time.Time
	look := func(after time.Duration, jobs int) {
		t.Helper()
		var err error
		if last, err = j.catchUp(t.Context(), j.crons[0], last, begin.Add(after)); err != nil {
			t.Fatal(err)
		}
		if s := status(t, j, q); s.Waiting != jobs {
			t.Errorf("%d jobs after %v, want %d", s.Waiting, after, jobs)
		}
	}
	look(0, 0)
	look(119*time.Minute, 0)
	look(2*time.Hour, 1)
	look(3*time.Hour, 1)
	look(4*time.Hour+59*time.Minute, 2) // late, but within the grace
	look(6*time.Hour, 3)
	look(9*time.Hour+30*time.Minute, 3) // that of 8h is too late
	look(10*time.Hour, 4)
}

// A process that leads again goes by what others did meanwhile, not by what it remembers.
func TestPeriodicLeadsAgain(t *testing.T) {
	t.Parallel()
	q := fresh("leader")
	rdb := client(t, single.Get(t).Addrs())
	var fleet [2]*Jobs
	for i := range fleet {
		fleet[i] = newJobs(t, rdb, nil, Queue{Name: q})
		if err := fleet[i].Every(Periodic{Name: q, Spec: "0 * * * *", Job: note{}, Options: []Option{On(q)}}); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Date(2027, 1, 1, 8, 30, 0, 0, time.UTC)
	look := func(j *Jobs, last time.Time, after time.Duration) time.Time {
		t.Helper()
		last, err := j.catchUp(t.Context(), j.crons[0], last, begin.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	remembered := look(fleet[0], time.Time{}, 0)
	look(fleet[1], time.Time{}, 31*time.Minute)
	if n, err := fleet[0].Purge(t.Context(), q, Waiting); err != nil || n != 1 { // its ID is free again
		t.Fatalf("%d jobs of 9 o'clock, %v", n, err)
	}
	remembered = look(fleet[0], remembered, 50*time.Minute)
	if s := status(t, fleet[0], q); s.Waiting != 0 {
		t.Error("the job of 9 o'clock was enqueued twice")
	}
	if err := rdb.Del(t.Context(), fleet[0].crons[0].lastKey()).Err(); err != nil { // Redis has lost it
		t.Fatal(err)
	}
	look(fleet[0], remembered, 91*time.Minute)
	if s := status(t, fleet[0], q); s.Waiting != 1 {
		t.Errorf("%d jobs of 10 o'clock", s.Waiting)
	}
}

func TestRunEnqueuesPeriodically(t *testing.T) {
	t.Parallel()
	q := fresh("every")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	if err := j.Every(Periodic{Name: q, Spec: "@every 1s", Job: note{N: 7}, Options: []Option{On(q)}}); err != nil {
		t.Fatal(err)
	}
	ran := make(chan int, 10)
	w := newWorker(t, j, nil)
	Handle(w, func(_ context.Context, job note) error { ran <- job.N; return nil })
	start(t, w)
	start(t, j)
	for range 2 {
		if n := <-ran; n != 7 {
			t.Errorf("job %d ran", n)
		}
	}
}

func TestBadPeriodic(t *testing.T) {
	t.Parallel()
	j := newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: "q"})
	err := j.Every(Periodic{Name: "a b", Spec: "61 * * * *", Grace: time.Second, Options: []Option{ID("x"), On("other")}, Job: note{}})
	for _, part := range []string{"Name", "Spec", "Grace", "ID", "other"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Every = %v\nwithout %q", err, part)
		}
	}
	if err := j.Every(Periodic{Name: "a", Spec: "@hourly"}); err == nil {
		t.Error("a periodic without a job was taken")
	}
	if err := errors.Join(j.Every(Periodic{Name: "a", Spec: "@hourly", Job: note{}}), j.Every(Periodic{Name: "a", Spec: "CRON_TZ=Europe/Berlin 0 6 * * *", Job: note{}})); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("two of one name: %v", err)
	}
}
