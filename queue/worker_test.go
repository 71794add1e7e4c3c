package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

func TestHandlerSeesJobAndTokens(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("tokens")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		type seen struct {
			job    note
			tokens scaleaware.Tokens
		}
		got := make(chan seen, 1)
		w := newWorker(t, j, nil)
		Handle(w, func(ctx context.Context, job note) error {
			tokens, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
			got <- seen{job, tokens}
			return err
		})
		start(t, w)
		ctx, mark := scaleaware.WithWatermark(t.Context())
		token := scaleaware.Token{System: 7, Timeline: 2, LSN: 4711}
		mark.Raise(token)
		if _, err := j.Enqueue(ctx, note{N: 42, Text: "ä"}); err != nil {
			t.Fatal(err)
		}
		s := <-got
		if s.job != (note{N: 42, Text: "ä"}) || s.tokens.For(7) != token || len(s.tokens) != 1 {
			t.Errorf("handler got %+v", s)
		}
		eventually(t, 5*time.Second, "the job is gone", func() bool {
			s := status(t, j, q)
			return s.Active == 0 && s.Waiting == 0 && s.RunP95Seconds != nil && *s.FailedRate == 0
		})
	})
}

func TestFailuresPanicsAndUnknownKinds(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("fail")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	w := newWorker(t, j, nil)
	Handle(w, func(ctx context.Context, job note) error {
		if job.N == 0 {
			panic("boom")
		}
		return errors.New("no")
	})
	start(t, w)
	enqueue(t, j, q, 2, MaxRetry(0))
	if _, err := j.Enqueue(t.Context(), stranger{}, On(q), MaxRetry(0)); err != nil {
		t.Fatal(err)
	}
	// The stranger's only attempt is not burned: it waits, it is not among the failed.
	eventually(t, 10*time.Second, "two failed, one waits for a worker that knows it", func() bool {
		s := status(t, j, q)
		return s.Failed == 2 && s.Retrying == 1 && s.Active == 0 && s.FailedRate != nil && *s.FailedRate == 1
	})
	// Both failed jobs get fresh attempts.
	if n, err := j.RetryFailed(t.Context(), q, nil); n != 2 || err != nil {
		t.Fatalf("RetryFailed = %d, %v", n, err)
	}
	eventually(t, 5*time.Second, "they fail again", func() bool { return status(t, j, q).Failed == 2 })
}

type stranger struct{}

func (stranger) Kind() string { return "test.stranger" }

func TestDrainLosesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("drain")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		const n = 300
		enqueue(t, j, q, n, MaxRetry(0))
		var done ledger
		var shutdowns atomic.Int64
		for done.n.Load() < n { // workers come and go; the slow jobs are cut off in each
			w := newWorker(t, j, &WorkerOptions{Concurrency: 40, DrainTimeout: 20 * time.Millisecond})
			begun := done.n.Load()
			Handle(w, func(ctx context.Context, job note) error {
				if job.N%10 == 0 && shutdowns.Load() < 60 {
					<-ctx.Done()
					if !errors.Is(context.Cause(ctx), ErrShutdown) {
						t.Errorf("cause = %v", context.Cause(ctx))
					}
					shutdowns.Add(1)
					return ctx.Err()
				}
				done.add(job.N)
				return nil
			})
			stop := start(t, w)
			eventually(t, 10*time.Second, "some jobs are done or held", func() bool {
				return done.n.Load() >= min(n, begun+60) || w.Busy() == 40 || status(t, j, q).Waiting == 0
			})
			stop()
			if s := status(t, j, q); s.Active != 0 || s.Failed != 0 || s.Retrying != 0 {
				t.Fatalf("after a drain: %+v", s)
			}
		}
		done.check(t, n, true)
		if shutdowns.Load() == 0 {
			t.Error("no job was cut off, the test proves nothing")
		}
	})
}

func TestDrainPutsBackDeafHandlers(t *testing.T) {
	t.Parallel()
	q := fresh("deaf")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 1, MaxRetry(0))
	w := newWorker(t, j, &WorkerOptions{DrainTimeout: time.Millisecond, Grace: time.Millisecond})
	begun, release := make(chan struct{}), make(chan struct{})
	Handle(w, func(ctx context.Context, job note) error {
		close(begun)
		<-release
		return nil
	})
	stop := start(t, w)
	<-begun
	stop()
	if s := status(t, j, q); s.Waiting != 1 || s.Active != 0 || s.OldestSeconds == nil {
		t.Errorf("after the drain: %+v", s)
	}
	close(release)
}

func TestResize(t *testing.T) {
	t.Parallel()
	q := fresh("resize")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 12)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2, MaxConcurrency: 8, DrainTimeout: time.Millisecond})
	release := make(chan struct{})
	Handle(w, func(ctx context.Context, job note) error {
		<-release
		return nil
	})
	start(t, w)
	eventually(t, 20*time.Second, "2 run", func() bool { return w.Busy() == 2 })
	if err := w.Resize(8); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "8 run", func() bool { return w.Busy() == 8 })
	if err := w.Resize(1); err != nil {
		t.Fatal(err)
	}
	for range 7 {
		release <- struct{}{}
	}
	eventually(t, 20*time.Second, "1 runs", func() bool { return w.Busy() == 1 && status(t, j, q).Active == 1 })
	for range 50 { // and it stays so while others wait
		if n := status(t, j, q).Active; n > 1 {
			t.Fatalf("%d run after Resize(1)", n)
		}
	}
	if w.Resize(9) == nil || w.Resize(-1) == nil {
		t.Error("Resize accepted what MaxConcurrency forbids")
	}
	close(release)
}

// A handler that runs on after its time keeps its slot until it returns: Writing counts it, and nothing starts in its place.
func TestTimedOutRunKeepsItsSlot(t *testing.T) {
	t.Parallel()
	q := fresh("overtime")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 2, MaxRetry(5), Timeout(time.Second))
	w := newWorker(t, j, &WorkerOptions{Concurrency: 1, MaxConcurrency: 1, RetryDelay: func(int, error) time.Duration { return time.Hour }})
	var f *fetcher
	w.expose = func(its *fetcher) redis.UniversalClient { f = its; return its }
	var ran atomic.Int64
	release := make(chan struct{})
	Handle(w, func(context.Context, note) error { ran.Add(1); <-release; return nil })
	start(t, w)
	eventually(t, 20*time.Second, "asynq has ended it", func() bool { return status(t, j, q).Retrying == 1 && f.handed.Load() == 0 || ran.Load() > 1 })
	if w.Busy() != 1 || w.Writing() != 1 || ran.Load() != 1 {
		t.Errorf("Busy is %d, Writing %d, %d handlers have begun", w.Busy(), w.Writing(), ran.Load())
	}
	close(release)
	eventually(t, 20*time.Second, "the second one is done", func() bool { s := status(t, j, q); return ran.Load() == 2 && s.Waiting+s.Active == 0 && w.Busy() == 0 })
}
