package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// However many queues do not answer, all are asked, for as long as the others, and within a bound that leaves the caller time.
func TestSilentQueuesShareABoundedTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		queues        int
		deadline      time.Duration
		each, overall time.Duration
	}{
		"a few":               {40, time.Minute, time.Second, time.Second},
		"a thousand":          {1000, time.Minute, time.Second, 4 * time.Second},
		"twenty thousand":     {80 * askAtOnce, time.Minute, 125 * time.Millisecond, 10 * time.Second},
		"for the console":     {40, 2 * time.Second, time.Second, time.Second},
		"many, for the same":  {10 * askAtOnce, 2 * time.Second, 150 * time.Millisecond, 1500 * time.Millisecond},
		"without a deadline":  {20 * askAtOnce, 0, 500 * time.Millisecond, 10 * time.Second},
		"with no time at all": {10, time.Nanosecond, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				waited, began := make([]time.Duration, c.queues), time.Now()
				sideBySide(ctx, c.queues, func(ctx context.Context, i int) {
					from := time.Now()
					<-ctx.Done()
					waited[i] = time.Since(from)
				})
				if took := time.Since(began); (took - c.overall).Abs() > time.Millisecond {
					t.Errorf("it took %v, want %v", took, c.overall)
				}
				for i, d := range waited {
					if (d - c.each).Abs() > time.Millisecond {
						t.Fatalf("queue %d was waited for %v, want %v", i, d, c.each)
					}
				}
			})
		})
	}
}
