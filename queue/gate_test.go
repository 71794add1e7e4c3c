package queue

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

var errReadOnly = errors.New("read-only")

type switchGate struct{ closed atomic.Bool }

func (g *switchGate) AllowWrite(context.Context) error {
	if g.closed.Load() {
		return errReadOnly
	}
	return nil
}

func TestGateParksAndResumes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		writes, reads := fresh("writes"), fresh("reads")
		gate := new(switchGate)
		j := newJobs(t, rdb, &Options{Gate: gate}, Queue{Name: writes}, Queue{Name: reads, ReadsOnly: true})
		enqueue(t, j, writes, 20, MaxRetry(0))
		enqueue(t, j, reads, 20)
		gate.closed.Store(true)
		if _, err := j.Enqueue(t.Context(), note{}, On(writes)); !errors.Is(err, errReadOnly) {
			t.Errorf("Enqueue = %v, want the gate's refusal", err)
		}
		if err := j.EnqueueTx(t.Context(), nil, note{}, On(writes)); !errors.Is(err, errReadOnly) {
			t.Errorf("EnqueueTx = %v, want the gate's refusal", err)
		}
		enqueue(t, j, reads, 1)
		w := newWorker(t, j, nil)
		var done atomic.Int64
		Handle(w, func(context.Context, note) error { done.Add(1); return nil })
		start(t, w)
		eventually(t, 5*time.Second, "reading jobs are done", func() bool { return status(t, j, reads).Waiting == 0 && done.Load() == 21 })
		if s := status(t, j, writes); s.Waiting != 20 || s.Active != 0 {
			t.Errorf("writing jobs moved in read-only mode: %+v", s)
		}
		gate.closed.Store(false)
		eventually(t, 5*time.Second, "writing jobs are done", func() bool { return done.Load() == 41 })
		if s := status(t, j, writes); s.Failed != 0 || s.Retrying != 0 {
			t.Errorf("parking cost attempts: %+v", s)
		}
	})
}

// TestUngatedWorkerRefuses gives asynq a client that goes past ours: with a declared limit, with one that only SetLimits has set,
// before the worker starts or while it runs, and with none.
func TestUngatedWorkerRefuses(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, expose := range map[string]func(f *fetcher) redis.UniversalClient{
		"not intercepted": func(f *fetcher) redis.UniversalClient { return f.UniversalClient },
		"unknown shape":   func(f *fetcher) redis.UniversalClient { return otherShape{f} },
	} {
		for limited, declared := range map[string]Rate{"declared": {Max: 1, Per: time.Second}, "set before": {}, "set while it runs": {}, "no limit": {}} {
			t.Run(name+", "+limited, func(t *testing.T) {
				t.Parallel()
				q := Queue{Name: fresh("canary"), Rate: declared}
				j := newJobs(t, rdb, nil, q)
				w := newWorker(t, j, nil)
				w.expose = expose
				Handle(w, func(context.Context, note) error { t.Error("a job ran past the gate"); return nil })
				set := func() {
					if err := j.SetLimits(t.Context(), q.Name, Limits{Rate: Rate{Max: 1, Per: time.Second}}); err != nil {
						t.Error(err)
					}
					enqueue(t, j, q.Name, 3, MaxRetry(0))
				}
				var group sync.WaitGroup
				defer group.Wait()
				switch limited {
				case "set while it runs":
					group.Go(func() { sleep(t.Context(), time.Second); set() })
				case "set before":
					set()
				default:
					enqueue(t, j, q.Name, 3, MaxRetry(0))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				if err := w.Run(ctx); !errors.Is(err, ErrNotGated) {
					t.Errorf("Run = %v, want ErrNotGated", err)
				}
				if limited == "set while it runs" {
					return // an unknown shape is refused before the jobs are there
				}
				if s := status(t, j, q.Name); s.Waiting+s.Active != 3 || s.Failed+s.Retrying != 0 {
					t.Errorf("a refusal has cost jobs or attempts: %+v", s)
				}
			})
		}
	}
}

// otherShape is an asynq of the future, whose fetch takes one more argument.
type otherShape struct{ *fetcher }

func (o otherShape) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if len(keys) > 0 && strings.HasSuffix(keys[0], ":pending") {
		args = append(args, "new")
	}
	return o.fetcher.EvalSha(ctx, sha, keys, args...)
}

// One master of a cluster that evicts is enough.
func TestEvictingMasterRefused(t *testing.T) {
	t.Parallel()
	servers, err := rediscluster.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { servers.Close() })
	masters, err := servers.Masters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := masters[len(masters)-1].SetMaxMemory(t.Context(), 100<<20, "allkeys-lru"); err != nil {
		t.Fatal(err)
	}
	j := newJobs(t, client(t, servers.Addrs()), nil, Queue{Name: "q"})
	w := newWorker(t, j, nil)
	Handle(w, func(context.Context, note) error { return nil })
	if err := w.Run(t.Context()); !errors.Is(err, ErrEvicting) {
		t.Errorf("Run = %v, want ErrEvicting", err)
	}
}

// TestEvictingRedisRefused has its own server, as the policy is the server's.
func TestEvictingRedisRefused(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb := client(t, server.Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: "q"})
	node := server.Nodes()[0]
	for policy, refused := range map[string]bool{"allkeys-lru": true, "allkeys-random": true, "noeviction": false, "volatile-lru": true, "volatile-ttl": true} {
		if err := node.SetMaxMemory(t.Context(), 100<<20, policy); err != nil {
			t.Fatal(err)
		}
		if err := j.Ready(t.Context()); errors.Is(err, ErrEvicting) != refused || err != nil && !refused {
			t.Errorf("%s: Ready = %v", policy, err)
		}
		if !refused {
			continue
		}
		w := newWorker(t, j, nil)
		Handle(w, func(context.Context, note) error { return nil })
		if err := w.Run(t.Context()); !errors.Is(err, ErrEvicting) {
			t.Errorf("%s: Run = %v, want ErrEvicting", policy, err)
		}
	}
	// Out of memory is Redis's own answer: nothing was stored, and that is certain.
	if err := node.SetMaxMemory(t.Context(), 1, "noeviction"); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Enqueue(t.Context(), note{}); err == nil || errors.Is(err, ErrUnconfirmed) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Enqueue into a full Redis = %v, want a certain refusal", err)
	}
	if err := node.SetMaxMemory(t.Context(), 0, "noeviction"); err != nil {
		t.Fatal(err)
	}

	// Redis down: the worker waits for it, and works when it is back.
	w := newWorker(t, j, nil)
	ran := make(chan int, 1)
	Handle(w, func(_ context.Context, job note) error { ran <- job.N; return nil })
	node.Kill()
	stop := start(t, w)
	if err := j.Ready(t.Context()); err == nil || errors.Is(err, ErrEvicting) {
		t.Errorf("Ready = %v while Redis is down", err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "Redis is back", func() bool { return j.Ready(t.Context()) == nil })
	if _, err := j.Enqueue(t.Context(), note{N: 7}); err != nil {
		t.Fatal(err)
	}
	if n := <-ran; n != 7 {
		t.Errorf("job %d ran", n)
	}
	stop()
}

func TestMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := New(nil, []Queue{{Name: "a{b}"}, {Name: "q", Weight: -1}, {Name: "q", Rate: Rate{Max: 5}}, {Name: "r", Rate: Rate{Per: time.Second}}},
		&Options{SampleInterval: -1, OutboxRetention: time.Millisecond, Registerer: prometheus.NewRegistry()})
	for _, part := range []string{"Redis client is nil", `"a{b}"`, "Weight", "declared twice", "Rate.Per", "Rate.Max", "SampleInterval", "OutboxRetention"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("New = %v\nwithout %q", err, part)
		}
	}
	j := newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: "q"})
	_, err = j.NewWorker(&WorkerOptions{Queues: []string{"other"}, Concurrency: -1, StallTimeout: time.Second, DrainTimeout: -1})
	for _, part := range []string{"other", "Concurrency", "StallTimeout", "DrainTimeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("NewWorker = %v\nwithout %q", err, part)
		}
	}
	w := newWorker(t, j, nil)
	if w.Run(t.Context()) == nil {
		t.Error("Run without a handler returned nil")
	}
}
