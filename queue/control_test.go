package queue

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
)

// call runs one operation as the management listener would, and returns its reply as JSON.
func call(t *testing.T, j *Jobs, id, queue, query string) (map[string]any, error) {
	t.Helper()
	for _, op := range j.Operations() {
		if op.ID != id {
			continue
		}
		req := httptest.NewRequest(op.Method, "/?"+query, nil)
		req.SetPathValue("queue", queue)
		reply, err := op.Do(t.Context(), &admin.Call{Actor: "test", DryRun: strings.Contains(query, "dry_run=true"), Request: req})
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		return fields, nil
	}
	t.Fatalf("no operation %s", id)
	return nil, nil
}

// want fails unless an operation's reply has the given fields.
func want(t *testing.T, j *Jobs, id, queue, query string, fields map[string]any) {
	t.Helper()
	got, err := call(t, j, id, queue, query)
	if err != nil {
		t.Errorf("%s?%s: %v", id, query, err)
	}
	for name, value := range fields {
		if diff := cmp.Diff(value, got[name]); diff != "" {
			t.Errorf("%s?%s: %s: %s", id, query, name, diff)
		}
	}
}

func TestPauseDrainResume(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("drain")
		j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 10, Per: time.Second}})
		const n = 1203 // more than two steps
		fill(t, j, q, n)
		before := pendingIDs(t, rdb, q)
		want(t, j, "queue.pause", q, "dry_run=true", map[string]any{"changed": true, "dry_run": true})
		want(t, j, "queue.status", q, "", map[string]any{"paused": false, "waiting": 1203.0, "rate_limit": map[string]any{"max": 10.0, "per_seconds": 1.0, "used": 0.0, "smooth": false, "declared": true}})
		want(t, j, "queue.pause", q, "", map[string]any{"changed": true})
		want(t, j, "queue.pause", q, "", map[string]any{"changed": false})

		w := newWorker(t, j, nil)
		Handle(w, func(context.Context, note) error { t.Error("a job of a paused queue ran"); return nil })
		stop := start(t, w)
		want(t, j, "queue.drain", q, "dry_run=true", map[string]any{"done": "parked", "count": 1203.0})
		want(t, j, "queue.drain", q, "", map[string]any{"done": "parked", "count": 1203.0})
		want(t, j, "queue.drain", q, "", map[string]any{"count": 0.0, "changed": false})
		want(t, j, "queue.status", q, "", map[string]any{"waiting": 0.0, "parked": 1203.0, "paused": true})
		stop()
		enqueue(t, j, q, 1) // accepted while drained; it comes after the parked ones
		want(t, j, "queue.resume", q, "", map[string]any{"count": 1203.0, "changed": true})
		want(t, j, "queue.resume", q, "", map[string]any{"count": 0.0, "changed": false})
		after := pendingIDs(t, rdb, q)
		if !slices.Equal(before, after[1:]) {
			t.Error("drain and resume changed the order of the jobs")
		}

		_, err := call(t, j, "queue.drain", q, "mode=discard")
		if p, ok := errors.AsType[*admin.Problem](err); !ok || p.Status != 400 || p.Field != "confirm" {
			t.Errorf("discard without consent: %v", err)
		}
		if _, err = call(t, j, "queue.drain", q, "mode=shred"); err == nil {
			t.Error("an unknown mode was accepted")
		}
		want(t, j, "queue.status", q, "", map[string]any{"waiting": 1204.0})
		want(t, j, "queue.drain", q, "mode=discard&confirm=true", map[string]any{"done": "discarded", "count": 1204.0})
		if keys := keysOf(t, rdb, q); slices.ContainsFunc(keys, func(k string) bool { return strings.Contains(k, ":t:") }) {
			t.Errorf("discard left jobs behind: %q", keys)
		}
	})
}

func TestRetryFailedInSteps(t *testing.T) {
	t.Parallel()
	q := fresh("retry")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	const n = 1100
	fill(t, j, q, n, MaxRetry(1))
	w := newWorker(t, j, &WorkerOptions{Concurrency: 40, RetryDelay: func(int, error) time.Duration { return 0 }})
	var mu sync.Mutex
	runs := map[int]int{}
	Handle(w, func(ctx context.Context, job note) error {
		mu.Lock()
		defer mu.Unlock()
		runs[job.N]++
		if runs[job.N] <= 2 {
			return errors.New("not yet")
		}
		if n, _ := asynq.GetRetryCount(ctx); n != 0 {
			t.Errorf("job %d has used %d attempts after retry-failed", job.N, n)
		}
		return nil
	})
	start(t, w)
	eventually(t, 30*time.Second, "all have failed", func() bool { return status(t, j, q).Failed == n })
	want(t, j, "queue.retry-failed", q, "dry_run=true", map[string]any{"count": 1100.0})
	want(t, j, "queue.retry-failed", q, "", map[string]any{"done": "retried", "count": 1100.0})
	want(t, j, "queue.retry-failed", q, "", map[string]any{"count": 0.0, "changed": false})
	eventually(t, 30*time.Second, "all are done", func() bool {
		s := status(t, j, q)
		return s.Failed == 0 && s.Waiting == 0 && s.Active == 0
	})
	mu.Lock()
	defer mu.Unlock()
	if len(runs) != n {
		t.Errorf("%d jobs ran, want %d", len(runs), n)
	}
}

// TestUnknownQueueWritesNothing compares the whole keyspace.
func TestUnknownQueueWritesNothing(t *testing.T) {
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: fresh("known")})
	before := keyspace(t, rdb)
	for _, id := range []string{"queue.status", "queue.pause", "queue.resume", "queue.drain", "queue.retry-failed"} {
		for _, name := range []string{"no-such-queue", "", "{known}", "a b", strings.Repeat("x", 1000), "../x", "*"} {
			_, err := call(t, j, id, name, "mode=discard&confirm=true")
			if p, ok := errors.AsType[*admin.Problem](err); !ok || p.Status != 404 {
				t.Errorf("%s of %q: %v, want 404", id, clip(name), err)
			}
		}
	}
	if _, err := j.Enqueue(t.Context(), note{}, On("no-such-queue")); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("Enqueue = %v", err)
	}
	if diff := cmp.Diff(before, keyspace(t, rdb)); diff != "" {
		t.Errorf("something was written: %s", diff)
	}
	// A queue that only another service declares is known.
	other := fresh("other")
	enqueue(t, newJobs(t, rdb, nil, Queue{Name: other}), other, 1)
	want(t, j, "queue.status", other, "", map[string]any{"waiting": 1.0})
	names, err := j.Names(t.Context())
	if err != nil || !slices.Contains(names, other) {
		t.Errorf("Names = %q, %v", names, err)
	}
}

func pendingIDs(t *testing.T, rdb redis.UniversalClient, queue string) []string {
	t.Helper()
	ids, err := rdb.LRange(t.Context(), asynqKey(queue, "pending"), 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// keysOf lists the keys of a queue's slot that carry its tag.
func keysOf(t *testing.T, rdb redis.UniversalClient, queue string) []string {
	t.Helper()
	var mu sync.Mutex
	var all []string
	scan := func(ctx context.Context, node *redis.Client) error {
		keys, err := node.Keys(ctx, "*{"+queue+"}*").Result()
		mu.Lock()
		defer mu.Unlock()
		all = append(all, keys...)
		return err
	}
	var err error
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(t.Context(), scan)
	case *redis.Client:
		err = scan(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func keyspace(t *testing.T, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	keys, err := rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string, len(keys))
	for _, key := range keys {
		all[key] = rdb.Dump(t.Context(), key).Val()
	}
	return all
}

// A step of Purge or Park whose answer was lost is not made again: what is there by then was not meant, and the caller hears what was
// counted until then.
func TestLostStepIsNotMadeTwice(t *testing.T) {
	t.Parallel()
	const n = step + 5
	for name, verb := range map[string]struct {
		script *redis.Script
		do     func(j *Jobs, q string) (int, error)
	}{
		"purge": {purgeScript, func(j *Jobs, q string) (int, error) { return j.Purge(t.Context(), q, Waiting) }},
		"park":  {moveScript, func(j *Jobs, q string) (int, error) { return j.Park(t.Context(), q) }},
	} {
		t.Run(name, func(t *testing.T) {
			onBothCut(t, verb.script.Hash(), func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
				q := fresh("lost-step")
				direct := newJobs(t, plain, nil, Queue{Name: q})
				fill(t, direct, q, n)
				rdb.then = func() { fill(t, direct, q, 3) }
				rdb.armed.Store(true)
				done, err := verb.do(newJobs(t, rdb.UniversalClient, nil, Queue{Name: q}), q)
				if s := status(t, direct, q); done != 0 || err == nil || answered(err) || rdb.sent.Load() != 1 || s.Waiting != n-step+3 {
					t.Errorf("%s = %d, %v, sent %d times, %d wait, want %d", name, done, err, rdb.sent.Load(), s.Waiting, n-step+3)
				}
				rdb.sent.Store(1) // from now on all are heard
				if again, err := verb.do(newJobs(t, rdb.UniversalClient, nil, Queue{Name: q}), q); again != n-step+3 || err != nil {
					t.Errorf("%s = %d, %v, when it was called again", name, again, err)
				}
			})
		})
	}
}
