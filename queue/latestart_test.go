package queue

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// held is a client whose first fetched job reaches asynq only after something has happened.
type held struct {
	*fetcher
	before func(f *fetcher)
	done   *atomic.Bool
}

func (h held) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := h.fetcher.EvalSha(ctx, sha, keys, args...)
	if strings.HasSuffix(keys[0], ":pending") && cmd.Err() == nil && !h.done.Swap(true) {
		h.before(h.fetcher)
	}
	return cmd
}

// A job whose handler is about to start so late after its fetch that its end could be refused does not run then: it is given back
// and runs once, and no attempt is counted.
func TestLateStartsAreGivenBack(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	age := func(f *fetcher, by time.Duration) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, t := range f.tickets {
			t.since = t.since.Add(-by)
		}
	}
	for name, before := range map[string]func(t *testing.T, f *fetcher){
		"late":  func(_ *testing.T, f *fetcher) { age(f, 20*time.Second) },
		"swept": func(_ *testing.T, f *fetcher) { age(f, 2*time.Minute); f.sweep(time.Now()) },
		"another worker's by now": func(t *testing.T, f *fetcher) {
			age(f, 20*time.Second)
			for _, id := range rdb.LRange(t.Context(), asynqKey(f.queue.Name, "active"), 0, -1).Val() {
				rdb.HSet(t.Context(), taskPrefix(f.queue.Name)+id, "owner", "other")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := fresh("late")
			j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 2, Per: time.Hour}})
			enqueue(t, j, q, 1, MaxRetry(0))
			w := newWorker(t, j, &WorkerOptions{Concurrency: 1, MaxConcurrency: 1, StallTimeout: 11 * time.Second})
			var ran, done atomic.Int64
			Handle(w, func(context.Context, note) error { ran.Add(1); return nil })
			var once atomic.Bool
			w.expose = func(f *fetcher) redis.UniversalClient {
				return held{f, func(f *fetcher) { before(t, f); done.Add(1) }, &once}
			}
			stop := start(t, w)
			if name == "another worker's by now" {
				eventually(t, 20*time.Second, "the job was handed", func() bool { return done.Load() == 1 })
				sleep(t.Context(), 500*time.Millisecond)
				if s := status(t, j, q); ran.Load() != 0 || s.Active != 1 {
					t.Errorf("another worker's job ran %d times: %+v", ran.Load(), s)
				}
				return
			}
			// One that was swept comes back by its lease.
			eventually(t, 60*time.Second, "the job is done", func() bool { s := status(t, j, q); return s.Waiting+s.Active+s.Retrying == 0 })
			stop()
			if s := status(t, j, q); ran.Load() != 1 || s.Failed+s.Retrying != 0 {
				t.Errorf("it ran %d times: %+v", ran.Load(), s)
			}
			if n := rdb.LLen(t.Context(), ownKey(q, "starts")).Val(); name == "late" && n != 1 {
				t.Errorf("%d starts are counted", n)
			}
		})
	}
}
