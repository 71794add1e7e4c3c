package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// A Redis that has lost its data is told of the queues again, by workers and by those who store jobs, so that asynq's tools see them.
func TestQueuesAreAnnouncedAgain(t *testing.T) {
	t.Parallel()
	server := alone(t)
	node := server.Nodes()[0]
	rdb := client(t, server.Addrs())
	worked, stored := fresh("worked"), fresh("stored")
	j := newJobs(t, rdb, nil, Queue{Name: worked}, Queue{Name: stored})
	enqueue(t, j, worked, 1)
	enqueue(t, j, stored, 1)
	w := newWorker(t, j, &WorkerOptions{Queues: []string{worked}})
	Handle(w, func(context.Context, note) error { return nil })
	start(t, w)
	inspector := asynq.NewInspectorFromRedisClient(rdb)
	for _, what := range []struct {
		what string
		lose func()
	}{
		{"FLUSHALL", func() {
			if err := rdb.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"a restart without data", func() {
			node.Kill()
			if err := node.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		eventually(t, 5*time.Second, "the worker's queue is known before "+what.what, func() bool {
			known, err := inspector.Queues()
			return err == nil && slices.Contains(known, worked)
		})
		what.lose()
		eventually(t, 8*time.Second, "both queues are known after "+what.what, func() bool {
			if _, err := j.Enqueue(t.Context(), note{}, On(stored)); err != nil {
				t.Log(err)
			}
			known, err := inspector.Queues()
			return err == nil && slices.Contains(known, worked) && slices.Contains(known, stored)
		})
		if s, err := inspector.GetQueueInfo(stored); err != nil || s.Pending == 0 {
			t.Errorf("asynq's tools see %+v, %v", s, err)
		}
	}
}

// A worker joins and leaves the crews of all its queues at once, so that in those of one master it does so also when another one does
// not answer.
func TestWorkersAreHeardOfBesideSilentQueues(t *testing.T) {
	t.Parallel()
	rdb, word, good := client(t, single.Get(t).Addrs()), fresh("hang"), fresh("good")
	joined, left := make(chan struct{}), make(chan struct{})
	joins, leaves := sync.OnceFunc(func() { close(joined) }), sync.OnceFunc(func() { close(left) })
	prefix, _, _ := strings.Cut(crewKey(word), word)
	rdb.AddHook(hangs{word: word, released: joined})
	rdb.AddHook(hangs{word: "hdel" + prefix + word, released: left})
	var queues []Queue
	for i := range 6 {
		queues = append(queues, Queue{Name: fmt.Sprint(word, "-", i)})
	}
	w := newWorker(t, newJobs(t, rdb, nil, append(queues, Queue{Name: good})...), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var announcing sync.WaitGroup
	announcing.Go(func() { w.announce(ctx) })
	defer announcing.Wait()
	defer leaves()
	defer joins()
	defer cancel()
	crew := func() int64 { return rdb.HLen(t.Context(), crewKey(good)).Val() }
	eventually(t, 10*time.Second, "it is one of the crew", func() bool { return crew() == 1 })
	joins()
	cancel()
	eventually(t, 10*time.Second, "it is none of the crew", func() bool { return crew() == 0 })
}

// A worker is heard of also on a full server, so that nobody is told that none lives.
func TestWorkersAreHeardOfOnAFullRedis(t *testing.T) {
	t.Parallel()
	ctx, rdb, q := t.Context(), client(t, alone(t).Addrs()), fresh("full")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1, ID("waits"))
	defer full(t, rdb)()
	for _, joins := range []bool{true, false} {
		if err := crewScript.Run(ctx, rdb, []string{crewKey(q)}, "w", 5, crewTTL.Milliseconds(), joins).Err(); err != nil {
			t.Error(err)
		}
	}
	if in, _, err := j.readQueue(ctx, q); in.Workers != 1 || in.Slots != 5 || err != nil {
		t.Errorf("%d workers with %d slots, %v", in.Workers, in.Slots, err)
	}
	if x, err := j.Explain(ctx, q, "waits"); err != nil || strings.Contains(x.Why, "no worker") {
		t.Errorf("%+v, %v", x, err)
	}
}

// A worker that joins forgets those that died, also where nobody scales.
func TestJoiningForgetsTheDead(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("crew")
		rdb.HSet(t.Context(), crewKey(q), "dead", "40 1000", "living", "40 9999999999999")
		w := newWorker(t, newJobs(t, rdb, nil, Queue{Name: q}), nil)
		Handle(w, func(context.Context, note) error { return nil })
		start(t, w)
		var crew map[string]string
		eventually(t, 20*time.Second, "the worker is one of the crew", func() bool {
			crew = rdb.HGetAll(t.Context(), crewKey(q)).Val()
			delete(crew, "living")
			delete(crew, "dead")
			return len(crew) == 1
		})
		if crew := rdb.HGetAll(t.Context(), crewKey(q)).Val(); len(crew) != 2 || crew["living"] == "" {
			t.Errorf("the crew is %v, want one that lived before and the new one", crew)
		}
	})
}
