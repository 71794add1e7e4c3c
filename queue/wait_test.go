package queue

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// calls counts the scripts that a client calls.
type calls struct{ atomic.Int64 }

func (c *calls) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *calls) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			c.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (c *calls) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A worker that waits for limits, for the end of a pause and for its gate asks Redis a few times a second, however many queues of
// it wait: what one gives back of its slots is no reason for another to ask.
func TestWaitingWorkerAsksSeldom(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	asked := new(calls)
	rdb.AddHook(asked)
	gate := new(switchGate)
	rare := Rate{Max: 1, Per: time.Minute}
	queues := []Queue{{Name: fresh("rare"), Rate: rare, ReadsOnly: true}, {Name: fresh("seldom"), Rate: rare, ReadsOnly: true}, {Name: fresh("paused"), ReadsOnly: true}, {Name: fresh("writes")}}
	j := newJobs(t, rdb, &Options{Gate: gate}, queues...)
	for _, q := range queues {
		enqueue(t, j, q.Name, 3)
	}
	if _, err := j.Pause(t.Context(), queues[2].Name, nil); err != nil {
		t.Fatal(err)
	}
	gate.closed.Store(true)
	w := newWorker(t, j, nil)
	var ran atomic.Int64
	Handle(w, func(context.Context, note) error { ran.Add(1); return nil })
	start(t, w)
	eventually(t, 10*time.Second, "the limits are used up", func() bool { return ran.Load() == 2 })
	before, began := asked.Load(), time.Now()
	sleep(t.Context(), 2*time.Second)
	perSecond := float64(asked.Load()-before) / time.Since(began).Seconds()
	t.Logf("%.0f scripts a second", perSecond)
	if perSecond > 100 { // 59 if it is never late, 40 of them for jobs that become due
		t.Errorf("a worker that has to wait calls %.0f scripts a second, want 100 at most", perSecond)
	}
}
