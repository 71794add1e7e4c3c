package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Finish returns when all that a queue has is done, delayed and retried jobs too, and takes no new ones meanwhile.
func TestFinishWorksOff(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("finish")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 2)
		if n, err := j.Park(t.Context(), q); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		enqueue(t, j, q, 20)
		enqueue(t, j, q, 3, In(2*time.Second))
		want(t, j, "queue.status", q, "", map[string]any{"finished": false})

		// Nobody works: the caller's patience ends, and the queue stays closed.
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := j.Finish(ctx, q, &Hold{Owner: "deployment"}, nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "20 waiting, 0 running, 3 delayed") {
			t.Errorf("Finish of a queue without workers = %v", err)
		}
		if _, err := j.Enqueue(t.Context(), note{}, On(q)); !errors.Is(err, ErrClosed) {
			t.Errorf("Enqueue = %v", err)
		}
		if err := j.Finish(t.Context(), q, &Hold{Owner: "somebody else"}, nil); !errors.Is(err, ErrHeld) {
			t.Errorf("Finish of another's = %v", err)
		}

		w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return 500 * time.Millisecond }})
		var done, tries atomic.Int64
		Handle(w, func(_ context.Context, job note) error {
			if job.N == 0 && tries.Add(1) <= 2 { // the waiting one and the delayed one
				return errors.New("not yet")
			}
			done.Add(1)
			return nil
		})
		start(t, w)
		var told []int
		if err := j.Finish(t.Context(), q, &Hold{Owner: "deployment"}, func(left int) { told = append(told, left) }); err != nil {
			t.Fatal(err)
		}
		if n := done.Load(); n != 23 {
			t.Errorf("Finish has returned after %d of 23 jobs", n)
		}
		if len(told) < 2 || told[0] > 23 || told[len(told)-1] != 0 || !slices.IsSortedFunc(told, func(a, b int) int { return b - a }) {
			t.Errorf("it told of %v left", told)
		}
		if s := status(t, j, q); s.Parked != 2 || s.Closed == nil || !s.Finished {
			t.Errorf("afterwards %+v", s)
		}
		want(t, j, "queue.status", q, "", map[string]any{"finished": true})
	})
}

// Whoever opens the queue has ended it: what comes now may never end.
func TestFinishEndsWhenTheQueueIsOpened(t *testing.T) {
	t.Parallel()
	q := fresh("opened")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	err := j.Finish(t.Context(), q, nil, func(int) {
		if _, err := j.Open(t.Context(), q, ""); err != nil {
			t.Error(err)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "takes jobs again, 1 are left") {
		t.Errorf("Finish = %v", err)
	}
	if err := j.Finish(t.Context(), "no-such-queue", nil, nil); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("Finish of an unknown queue = %v", err)
	}
	if err := j.Finish(t.Context(), q, &Hold{For: time.Second}, nil); err == nil {
		t.Error("Finish outlived its hold")
	}
}

// What ends the wait is in the error: the context's error, its cause, and a client that is closed, which no waiting opens again.
func TestFinishSaysWhatEndedIt(t *testing.T) {
	t.Parallel()
	q := fresh("ended")
	rdb := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: single.Get(t).Addrs()})
	defer rdb.Close()
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	impatient := errors.New("the deployment goes on without")
	ended, end := context.WithCancelCause(t.Context())
	defer end(nil)
	for _, when := range []string{"while it waits", "before it"} {
		if err := j.Finish(ended, q, nil, func(int) { end(impatient) }); !errors.Is(err, context.Canceled) || !errors.Is(err, impatient) {
			t.Errorf("with a cause %s Finish = %v", when, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := j.Finish(ctx, q, nil, func(int) { _ = rdb.Close() }); !errors.Is(err, redis.ErrClosed) || ctx.Err() != nil {
		t.Errorf("with a closed client Finish = %v", err)
	}
}
