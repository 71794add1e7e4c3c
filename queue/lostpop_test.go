package queue

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// lostPop is a client that loses the answer of its first pop from a queue.
func lostPop(t *testing.T, rdb redis.UniversalClient, q string, then func()) redis.UniversalClient {
	t.Helper()
	if err := popScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	var once atomic.Bool
	return deaf{rdb, func(keys []string, _ []any) bool {
		return len(keys) == 9 && keys[0] == asynqKey(q, "pending") && !once.Swap(true)
	}, then}
}

// The jobs of a pop whose answer was lost, for however long, start under the limit, too, and its starts are given back.
func TestRateHoldsAfterALostPop(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("rate")
	declared := Queue{Name: q, Rate: Rate{Max: 10, Per: time.Second}}
	enqueue(t, newJobs(t, rdb, nil, declared), q, 30)
	head := pendingIDs(t, rdb, q)
	window := declared.Rate.window()
	j := newJobs(t, lostPop(t, rdb, q, func() { sleep(t.Context(), window) }), nil, declared)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 50})
	var mu sync.Mutex
	var stamps []int64
	var ids []string
	w.onStart = func(_, id string, stamp int64) {
		mu.Lock()
		defer mu.Unlock()
		stamps, ids = append(stamps, stamp), append(ids, id)
	}
	var done atomic.Int64
	Handle(w, func(context.Context, note) error { done.Add(1); return nil })
	start(t, w)
	eventually(t, 20*time.Second, "all are done", func() bool { return done.Load() == 30 })
	mu.Lock()
	defer mu.Unlock()
	if len(stamps) != 30 || stamps[0] == 0 {
		t.Fatalf("%d starts have passed the limit: %v", len(stamps), stamps)
	}
	for i := 10; i < len(stamps); i++ {
		if apart := time.Duration(stamps[i]-stamps[i-10]) * time.Microsecond; apart < window {
			t.Errorf("starts %d and %d are %v apart, want %v", i-10, i, apart, window)
		}
	}
	slices.Reverse(head)
	if !slices.Equal(ids, head) {
		t.Error("their order has changed")
	}
}

// A start that a lost pop was granted and that never came is granted again at once.
func TestLostPopTakesNoStart(t *testing.T) {
	t.Parallel()
	for name, declared := range map[string]Queue{
		"window": {Rate: Rate{Max: 2, Per: time.Hour}},
		"smooth": {Rate: Rate{Max: 20, Per: time.Hour}, Smooth: true}, // two of which may come at once
	} {
		t.Run(name, func(t *testing.T) {
			rdb := client(t, single.Get(t).Addrs())
			q := fresh("hour")
			declared.Name = q
			enqueue(t, newJobs(t, rdb, nil, declared), q, 3)
			w := newWorker(t, newJobs(t, lostPop(t, rdb, q, nil), nil, declared), nil)
			var done atomic.Int64
			Handle(w, func(context.Context, note) error { done.Add(1); return nil })
			start(t, w)
			eventually(t, 20*time.Second, "two have run", func() bool { return done.Load() == 2 })
			if n := rdb.LLen(t.Context(), ownKey(q, "starts")).Val(); n != 2 {
				t.Errorf("%d starts are counted, want 2", n)
			}
		})
	}
}

// Slots that were free because an answer was lost are not taken by its jobs on top of those that have them by then.
func TestSlotsHoldAfterALostPop(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	a := fresh("slots")
	plain := newJobs(t, rdb, nil, Queue{Name: a})
	enqueue(t, plain, a, 10)
	j := newJobs(t, lostPop(t, rdb, a, nil), nil, Queue{Name: a})
	f := newFetcher(j, j.queues[0], 0, newSlots(10, j.queues), 10, time.Millisecond, nil)
	keys, args := fetching(a)
	if wait, _ := f.refill(t.Context(), keys, args); len(f.ready) != 0 || wait == 0 {
		t.Fatalf("%d jobs came, the answer is not lost", len(f.ready))
	}
	if s := status(t, plain, a); s.Active != 10 {
		t.Fatalf("%+v", s)
	}
	f.slots.take(0, 7) // another queue has taken them
	f.refill(t.Context(), keys, args)
	if s := status(t, plain, a); len(f.ready) != 3 || f.slots.busy() != 10 || s.Active != 3 || s.Waiting != 7 || s.OldestSeconds == nil {
		t.Errorf("%d jobs came for 3 slots, %d are taken: %+v", len(f.ready), f.slots.busy(), s)
	}
}

// A call that Redis gets to only after a later one, as when it stood still, takes nothing that is under way, and nothing for nobody.
func TestLatePopDoesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("latepop")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 4)
		f := newFetcher(j, j.queues[0], 0, newSlots(2, j.queues), 2, time.Millisecond, nil)
		keys, args := fetching(q)
		f.pops = 7 // its call got lost on the way
		f.refill(t.Context(), keys, args)
		if len(f.ready) != 2 || f.known != 8 {
			t.Fatalf("%d jobs came with pop %d", len(f.ready), f.known)
		}
		owners := func() (all []string) {
			for _, id := range rdb.LRange(t.Context(), asynqKey(q, "active"), 0, -1).Val() {
				all = append(all, rdb.HGet(t.Context(), taskPrefix(q)+id, "owner").Val())
			}
			return all
		}
		before := owners()
		for _, number := range []uint64{7, 8} {
			ghost := newFetcher(j, j.queues[0], 0, newSlots(2, j.queues), 2, time.Millisecond, nil)
			ghost.id, ghost.pops, ghost.known = f.id, number, 0
			reply, err := ghost.pop(t.Context(), keys, args, 2)
			if err != nil || len(reply.jobs) != 0 {
				t.Errorf("late call %d got %d jobs, %v", number, len(reply.jobs), err)
			}
		}
		if s := status(t, j, q); s.Waiting != 2 || !slices.Equal(owners(), before) || !strings.HasSuffix(before[0], ":8") {
			t.Errorf("late calls have changed something: %v, then %v, %+v", before, owners(), s)
		}
	})
}

// A process that stood still between Redis's answer and its look at it does not start jobs that are another worker's by then.
func TestStoodStillAfterThePop(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("still")
	plain := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, plain, q, 1, MaxRetry(0))
	const within = 50 * time.Millisecond
	j := newJobs(t, still{rdb, func() { taken(t, plain, q); sleep(t.Context(), 2*within) }}, nil, Queue{Name: q})
	f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
	f.freshFor = within
	keys, args := fetching(q)
	if err := f.fetch(t.Context(), keys, args).Err(); !isNil(err) {
		t.Errorf("fetch = %v, it started a job that is not its own any more", err)
	}
	if s := status(t, plain, q); s.Waiting != 1 || s.Active != 0 || f.slots.busy() != 0 {
		t.Errorf("%d slots are taken: %+v", f.slots.busy(), s)
	}
}

// still stands still after a pop.
type still struct {
	redis.UniversalClient
	after func()
}

func (s still) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := s.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if len(keys) == 9 && cmd.Err() == nil {
		s.after()
	}
	return cmd
}

func (s still) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	cmd := s.UniversalClient.Eval(ctx, script, keys, args...)
	if len(keys) == 9 && cmd.Err() == nil {
		s.after()
	}
	return cmd
}
