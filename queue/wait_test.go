package queue

import (
	"context"
	"strconv"
	"strings"
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

// TestIdleWorkerSendsLittle counts in both ways what an idle worker of one queue costs: the scripts that it sends, which are nearly all, and
// what Redis's commandstats have, which count the commands inside of scripts as well.
func TestIdleWorkerSendsLittle(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, aside := client(t, server.Addrs()), client(t, server.Addrs())
	sent := new(calls)
	rdb.AddHook(sent)
	j := newJobs(t, rdb, nil, Queue{Name: fresh("idle")})
	w := newWorker(t, j, nil)
	Handle(w, func(context.Context, note) error { return nil })
	start(t, w)
	stats := func() (all float64) {
		info, err := aside.InfoMap(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range info["Commandstats"] {
			calls, _, _ := strings.Cut(strings.TrimPrefix(text, "calls="), ",")
			n, err := strconv.ParseFloat(calls, 64)
			if err != nil {
				t.Fatalf("%s is %q", name, text)
			}
			all += n
		}
		return all
	}
	var perSecond, inside float64
	for range 5 { // its start may not be over
		before, counted, began := sent.Load(), stats(), time.Now()
		sleep(t.Context(), 5*time.Second)
		seconds := time.Since(began).Seconds()
		perSecond, inside = float64(sent.Load()-before)/seconds, (stats()-counted)/seconds
		t.Logf("an idle worker sends %.0f scripts a second, and commandstats count %.0f commands", perSecond, inside)
		if perSecond <= 60 && inside <= 400 {
			return
		}
	}
	t.Errorf("an idle worker sends %.0f scripts a second, want 60 at most; Redis runs %.0f commands, want 400 at most", perSecond, inside)
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
