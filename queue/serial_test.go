package queue

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// lazy is a client whose fetcher has seen nothing for so long that it looks only now and then.
type lazy struct{ *fetcher }

func (l lazy) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if strings.HasSuffix(keys[0], ":pending") {
		l.empty = l.pollTo
	}
	return l.fetcher.EvalSha(ctx, sha, keys, args...)
}

// A queue of which one job runs at a time in the fleet goes on as soon as that has ended, also where the worker's slot was free before.
func TestSerialQueueDoesNotWaitForAPoll(t *testing.T) {
	t.Parallel()
	q := fresh("serial")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q, Concurrency: 1})
	const n = 100
	jobs := make([]Job, n)
	for i := range jobs {
		jobs[i] = note{N: i}
	}
	if _, err := j.EnqueueMany(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	w := newWorker(t, j, &WorkerOptions{Concurrency: 2, PollInterval: 10 * time.Minute}) // so that none of them would be in time
	w.expose = func(f *fetcher) redis.UniversalClient { return lazy{f} }
	var ran, at, overlaps atomic.Int64
	Handle(w, func(context.Context, note) error {
		if at.Add(1) > 1 {
			overlaps.Add(1)
		}
		defer at.Add(-1)
		ran.Add(1)
		return nil
	})
	start(t, w)
	began := time.Now()
	eventually(t, 60*time.Second, "all have run", func() bool { return ran.Load() == n })
	t.Logf("%v a job", time.Since(began)/n)
	if overlaps.Load() > 0 {
		t.Errorf("%d began while another ran", overlaps.Load())
	}
}
