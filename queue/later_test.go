package queue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// A job that its handler gives back comes again when it said, as often as it says, with all its attempts.
func TestLaterCountsNoAttempt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("later")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1, MaxRetry(0), Retention(time.Hour))
		w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return time.Hour }})
		const pause = 300 * time.Millisecond
		var runs []time.Time
		ended := make(chan struct{})
		Handle(w, func(ctx context.Context, _ note) error {
			runs = append(runs, time.Now())
			if a := AttemptFrom(ctx); a.Number != 1 {
				t.Errorf("it is attempt %d", a.Number)
			}
			if len(runs) < 4 {
				return fmt.Errorf("the provider: %w", Later(pause, []error{errors.New("429"), asynq.SkipRetry, asynq.RevokeTask}[len(runs)-1]))
			}
			close(ended)
			return nil
		})
		start(t, w)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("it did not come back")
		}
		for i := range len(runs) - 1 {
			if after := runs[i+1].Sub(runs[i]); after < pause {
				t.Errorf("it came back after %v", after)
			}
		}
		eventually(t, 5*time.Second, "it is done", func() bool { return status(t, j, q).Completed == 1 })
		if s := status(t, j, q); s.FailedRate == nil && s.Failed+s.Retrying > 0 || s.FailedRate != nil && *s.FailedRate != 0 {
			t.Errorf("giving back counts as a failure: %+v", s)
		}
	})
}

func TestLaterError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ after, wait time.Duration }{{-1, leastLater}, {0, leastLater}, {time.Minute, time.Minute}, {48 * time.Hour, mostLater}} {
		later, ok := errors.AsType[*LaterError](Later(c.after, asynq.SkipRetry))
		if !ok || later.wait() != c.wait || !errors.Is(later, asynq.SkipRetry) {
			t.Errorf("Later(%v) waits for %v, want %v", c.after, later.wait(), c.wait)
		}
	}
	if text := Later(time.Second, nil).Error(); text != "queue: the job is to come back after 1s" {
		t.Error(text)
	}
}
