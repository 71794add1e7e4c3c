package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
)

//go:noinline
func explode(n int) {
	if n == 0 {
		panic("boom")
	}
	explode(n - 1)
}

//go:noinline
func outOfRange(list []int, i int) int { return list[i] }

func TestPanicsAreErrorsWithStack(t *testing.T) {
	t.Parallel()
	q := fresh("panic")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	dead := make(chan DeadJob, 10)
	asked := make(chan error, 10)
	w := newWorker(t, j, &WorkerOptions{
		OnDead:     func(_ context.Context, d DeadJob) { dead <- d },
		RetryDelay: func(_ int, err error) time.Duration { asked <- err; return 0 },
	})
	Handle(w, func(_ context.Context, job note) error {
		switch job.N {
		case 0:
			explode(3)
		case 1:
			outOfRange(nil, job.N)
		case 2:
			explode(1000)
		case 3:
			panic(strings.Repeat("é", 10_000))
		case 4:
			return errors.New("no")
		}
		return nil
	})
	start(t, w)
	for n, want := range []struct{ text, function, file string }{
		{"panic: boom [", "queue.explode(", "panic_test.go:21"},
		{"index out of range [1] with length 0 [", "queue.outOfRange(", "panic_test.go:27"},
		{"panic: boom [", "queue.explode(", "panic_test.go:21"},
		{"é… [", "TestPanicsAreErrorsWithStack", "panic_test.go:49"},
	} {
		info, err := j.Enqueue(t.Context(), note{N: n}, MaxRetry(0))
		if err != nil {
			t.Fatal(err)
		}
		d := <-dead
		x, err := j.Explain(t.Context(), q, info.ID)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := j.asynq.GetTaskInfo(q, info.ID)
		if err != nil {
			t.Fatal(err)
		}
		for where, text := range map[string]string{"OnDead": d.Error, "Explain": x.Error, "asynq's tools": theirs.LastErr} {
			if !strings.Contains(text, want.text) || !strings.Contains(text, want.file+"]") || strings.Contains(text, "\n") || len(text) > 1500 {
				t.Errorf("job %d: %s says %q, want %q and %q", n, where, text, want.text, want.file)
			}
		}
		for where, stack := range map[string]string{"OnDead": d.Stack, "Explain": x.Stack} {
			first, _, _ := strings.Cut(stack, "\n")
			if !strings.Contains(stack, want.function) || !strings.Contains(stack, want.file) ||
				len(stack) > maxStack || !strings.Contains(first, "queue.") {
				t.Errorf("job %d: %s has stack %d bytes\n%s\nwant %q and %q, the handler's frames first", n, where, len(stack), stack, want.function, want.file)
			}
		}
	}
	// A RetryDelay can tell.
	info, err := j.Enqueue(t.Context(), note{N: 0}, MaxRetry(1))
	if err != nil {
		t.Fatal(err)
	}
	p, ok := errors.AsType[*PanicError](<-asked)
	if !ok || p.Value != "boom" || !strings.Contains(p.Stack, "queue.explode(") {
		t.Errorf("RetryDelay was asked about %#v", p)
	}
	<-dead
	// The stack of an earlier panic is not told as that of a later error.
	if err := rdb.HSet(t.Context(), taskPrefix(q)+info.ID, "msg", string((&message{kind: "test.note", payload: []byte(`{"n":4}`), id: info.ID, queue: q}).encode())).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := j.RetryFailed(t.Context(), q, &RetryFailed{Most: 10}); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	eventually(t, 10*time.Second, "it fails by an error", func() bool {
		x, err := j.Explain(t.Context(), q, info.ID)
		return err == nil && x.State == "failed" && x.Error == "no" && x.Stack == ""
	})
}

// TestErrorsThatAreNoText: asynq's message is UTF-8, and an error that is none could not be stored, so the job never failed.
func TestErrorsThatAreNoText(t *testing.T) {
	t.Parallel()
	q := fresh("binary")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	w := newWorker(t, j, nil)
	Handle(w, func(context.Context, note) error { return fmt.Errorf("read \xff\xfe: %w", asynq.SkipRetry) })
	start(t, w)
	info, err := j.Enqueue(t.Context(), note{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it has failed", func() bool {
		x, err := j.Explain(t.Context(), q, info.ID)
		return err == nil && x.State == "failed" && strings.HasPrefix(x.Error, "read \uFFFD")
	})
}

func TestPanicOfAnAsynqHandler(t *testing.T) {
	w := &Worker{jobs: newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: "a"})}
	err := w.protect(t.Context(), func(context.Context, *asynq.Task) error {
		none := []int{}
		none[len(none)]++
		return nil
	}, asynq.NewTask("a", nil), "a", "1")
	p, ok := errors.AsType[*PanicError](err)
	if !ok || !strings.Contains(err.Error(), "index out of range [0] with length 0 [") || !strings.Contains(err.Error(), "panic_test.go:") || strings.Contains(p.Stack, "protect") {
		t.Errorf("%v\n%s", err, fmt.Sprint(p))
	}
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type noIdentity struct{}

func (noIdentity) Error() string { return "whoever asks for more gets nothing" }
func (noIdentity) Is(error) bool { panic("no identity") }

// An error that panics when it is looked at is a failed attempt like others, and counted like them.
func TestErrorsThatPanic(t *testing.T) {
	t.Parallel()
	q := fresh("broken")
	rdb, reg := client(t, single.Get(t).Addrs()), prometheus.NewRegistry()
	j := newJobs(t, rdb, &Options{Registerer: reg}, Queue{Name: q})
	dead := make(chan DeadJob, 10)
	w := newWorker(t, j, &WorkerOptions{OnDead: func(_ context.Context, d DeadJob) { dead <- d }})
	broken := []error{(*nilError)(nil), (*LaterError)(nil), fmt.Errorf("no: %w", (*LaterError)(nil)), noIdentity{}}
	Handle(w, func(_ context.Context, job note) error { return broken[job.N] })
	stop := start(t, w)
	for n := range broken {
		if _, err := j.Enqueue(t.Context(), note{N: n}, MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
		d := <-dead
		if isPanic := strings.HasPrefix(d.Error, "queue: panic: "); isPanic != (n < 2) || isPanic && !strings.Contains(d.Stack, "Error()") {
			t.Errorf("%T: %+v", broken[n], d)
		}
	}
	stop()
	if c, err := readRuns(t.Context(), rdb, q); err != nil || c.failed != int64(len(broken)) || c.done != 0 {
		t.Errorf("%d are counted as failed and %d as done, %v; want %d", c.failed, c.done, err, len(broken))
	}
	if n := running(t, reg); n != 0 {
		t.Errorf("%v jobs are said to run", n)
	}
}

// running is how many jobs the registry says run.
func running(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == metrics.JobActive.Name {
				n += m.GetGauge().GetValue()
			}
		}
	}
	return n
}

// What is written of a panic takes neither the job's slot nor its time, and what is read of it nothing of OnDead's ten seconds.
func TestPanicsAreNotedInOwnTime(t *testing.T) {
	t.Parallel()
	q := fresh("noted")
	rdb, reg := &watched{UniversalClient: client(t, single.Get(t).Addrs())}, prometheus.NewRegistry()
	j := newJobs(t, rdb, &Options{Registerer: reg}, Queue{Name: q})
	left, second := make(chan time.Duration, 1), make(chan struct{})
	w := newWorker(t, j, &WorkerOptions{Concurrency: 1, OnDead: func(ctx context.Context, _ DeadJob) {
		until, _ := ctx.Deadline()
		left <- until.Sub(rdb.read)
	}})
	rdb.note = func() {
		if n := running(t, reg); n != 0 {
			t.Errorf("while the panic is noted %v jobs are said to run", n)
		}
		if _, err := j.Enqueue(t.Context(), note{}); err != nil {
			t.Error(err)
		}
		select {
		case <-second:
		case <-time.After(5 * time.Second):
			t.Error("while the panic is noted no other job starts")
		}
	}
	Handle(w, func(ctx context.Context, _ note) error {
		if AttemptFrom(ctx).MaxRetry == 0 {
			panic("boom")
		}
		close(second)
		return nil
	})
	start(t, w)
	enqueue(t, j, q, 1, MaxRetry(0))
	if d := <-left; rdb.read.IsZero() || d < 10*time.Second {
		t.Errorf("OnDead has %v from when the stack was read", d)
	}
}

// watched is a client that tells when a panic is noted, and was read.
type watched struct {
	redis.UniversalClient
	note func()
	read time.Time
}

func (c *watched) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if sha == noteScript.Hash() {
		c.note()
	}
	return c.UniversalClient.EvalSha(ctx, sha, keys, args...)
}

func (c *watched) HGet(ctx context.Context, key, field string) *redis.StringCmd {
	cmd := c.UniversalClient.HGet(ctx, key, field)
	if field == fieldPanic {
		c.read = time.Now()
	}
	return cmd
}
