package queue

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// Workers are replaced one by one, by SIGTERM, while jobs come and run. Each runs once, on its only attempt.
func TestRollingDeployment(t *testing.T) {
	t.Parallel()
	rdb := client(t, cluster.Get(t).Addrs())
	q := Queue{Name: fresh("rolling")}
	j := newJobs(t, rdb, nil, q)
	var done, ended ledger
	begin := func() *child {
		return startChild(t, childConfig{Addrs: cluster.Get(t).Addrs(), Queues: []Queue{q}, Work: 100 * time.Millisecond}, func(what string, n int64) {
			switch what {
			case "run":
				done.add(int(n))
			case "end":
				ended.add(int(n))
			}
		})
	}
	fleet := []*child{begin(), begin(), begin()}
	ctx, cancel := context.WithCancel(t.Context())
	var n atomic.Int64
	var load sync.WaitGroup
	load.Go(func() {
		for sleep(ctx, 5*time.Millisecond) {
			i := int(n.Load())
			if _, err := j.Enqueue(context.WithoutCancel(ctx), note{N: i}, On(q.Name), MaxRetry(0)); err != nil {
				t.Errorf("job %d: %v", i, err)
				return
			}
			n.Add(1)
		}
	})
	for i := range fleet {
		seen := done.n.Load()
		eventually(t, 30*time.Second, "jobs run", func() bool { return done.n.Load() >= seen+100 })
		replacement := begin()
		eventually(t, 30*time.Second, "jobs are in flight", func() bool { return status(t, j, q.Name).Active > 0 })
		fleet[i].terminate()
		fleet[i] = replacement
	}
	seen := done.n.Load()
	eventually(t, 30*time.Second, "jobs run on the new workers", func() bool { return done.n.Load() >= seen+100 })
	cancel()
	load.Wait()
	eventually(t, 30*time.Second, "all are done", func() bool { s := status(t, j, q.Name); return s.Waiting+s.Active == 0 })
	eventually(t, 5*time.Second, "all are told", func() bool { return ended.n.Load() >= n.Load() })
	done.check(t, int(n.Load()), true)
	ended.check(t, int(n.Load()), true)
	if s := status(t, j, q.Name); s.Failed+s.Retrying != 0 {
		t.Errorf("the deployment has cost attempts: %+v", s)
	}
}

// Redis is killed and comes back from its log. What it had confirmed is there, and workers go on by themselves.
func TestRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	t.Run("always", func(t *testing.T) { t.Parallel(); redisKilledAndRestarted(t, "always", 0) })
	// Here Redis may hold writes back while earlier ones are on their way to the disk, for two seconds at most, and tells of it.
	t.Run("everysec", func(t *testing.T) { t.Parallel(); redisKilledAndRestarted(t, "everysec", 2*time.Second) })
}

// redisKilledAndRestarted lets jobs be lost that were confirmed within some time before a kill, after Redis had last told that all was
// written.
func redisKilledAndRestarted(t *testing.T, appendfsync string, held time.Duration) {
	ctx := t.Context()
	server, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1, Config: map[string]string{"appendonly": "yes", "appendfsync": appendfsync}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	node := server.Nodes()[0]
	q := fresh("restart")
	rdb := client(t, server.Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	var mu sync.Mutex
	ran := map[int]bool{}
	w := newWorker(t, j, nil)
	Handle(w, func(_ context.Context, job note) error {
		mu.Lock()
		defer mu.Unlock()
		ran[job.N] = true
		return nil
	})
	start(t, w)
	stored := map[int]time.Time{} // when it was confirmed
	var kills []struct{ written, at time.Time }
	next := 0
	fastest := time.Hour
	for range 3 {
		var written time.Time
		for i := range 200 {
			if i == 180 {
				eventually(t, 30*time.Second, "all is written", func() bool {
					written = time.Now()
					info, err := rdb.Info(ctx, "persistence").Result()
					return err == nil && infoField(info, "aof_buffer_length") == "0"
				})
			}
			if _, err := j.Enqueue(ctx, note{N: next}, On(q), MaxRetry(0)); err == nil {
				stored[next] = time.Now()
			}
			next++
		}
		kills = append(kills, struct{ written, at time.Time }{written, time.Now()})
		node.Kill()
		if err := node.Start(ctx); err != nil {
			t.Fatal(err)
		}
		up := time.Now()
		eventually(t, 15*time.Second, "Redis answers", func() bool { return j.Ready(ctx) == nil })
		if _, err := j.Enqueue(ctx, note{N: next}, On(q)); err != nil {
			t.Fatal(err)
		}
		stored[next] = time.Now()
		eventually(t, 15*time.Second, "workers go on", func() bool { mu.Lock(); defer mu.Unlock(); return ran[next] })
		t.Logf("a job ran %v after Redis was back", time.Since(up).Round(time.Millisecond))
		fastest = min(fastest, time.Since(up))
		next++
	}
	if fastest > 2*time.Second { // a busy machine is not slow three times
		t.Errorf("workers went on %v after Redis was back at best, want 2s at most", fastest)
	}
	eventually(t, 30*time.Second, "all are done", func() bool { s, err := j.readDepth(ctx, q); return err == nil && s.Waiting+s.Active == 0 })
	mu.Lock()
	defer mu.Unlock()
	lost := 0
	for n, at := range stored {
		if ran[n] {
			continue
		}
		lost++
		if !slices.ContainsFunc(kills, func(k struct{ written, at time.Time }) bool {
			return at.After(k.written) && k.at.After(at) && k.at.Sub(at) < held
		}) {
			t.Errorf("job %d was confirmed and never ran", n)
		}
	}
	t.Logf("of %d confirmed jobs %d were lost", len(stored), lost)
	if s := status(t, j, q); s.Failed+s.Retrying != 0 {
		t.Errorf("the restarts have cost attempts: %+v", s)
	}
}
