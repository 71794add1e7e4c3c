package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

var (
	single   = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
	cluster  = rediscluster.NewShared(nil)
	database = pgcluster.NewShared(nil)
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		runChild()
		return
	}
	if os.Getenv(relayEnv) != "" {
		runRelay()
		return
	}
	if os.Getenv(scaleChildEnv) != "" {
		runScaleChild()
		return
	}
	goleak.VerifyTestMain(single.Around(cluster.Around(database.Around(m))),
		// It sleeps for a second between its looks at a dead server, and only then sees that its client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// onBoth runs a test on a plain server and on a six-node cluster.
func onBoth(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	for name, shared := range map[string]*rediscluster.Shared{"single": single, "cluster": cluster} {
		t.Run(name, func(t *testing.T) { test(t, client(t, shared.Get(t).Addrs())) })
	}
}

func client(t *testing.T, addrs []string) redis.UniversalClient {
	t.Helper()
	rdb := redisclient.New(redisclient.Options(addrs...))
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// alone is a server that no other test uses.
func alone(t *testing.T) *rediscluster.Cluster {
	t.Helper()
	server, err := rediscluster.Start(t.Context(), &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

// fresh makes a queue name that no other test uses.
func fresh(prefix string) string { return prefix + "-" + uuid.NewString()[:8] }

func newJobs(t *testing.T, rdb redis.UniversalClient, o *Options, queues ...Queue) *Jobs {
	t.Helper()
	j, err := New(rdb, queues, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func newWorker(t *testing.T, j *Jobs, o *WorkerOptions) *Worker {
	t.Helper()
	w, err := j.NewWorker(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// start runs w until the returned function, which waits for its end, or the test's end.
func start(t *testing.T, w interface{ Run(context.Context) error }) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually polls a condition.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		sleep(context.Background(), 5*time.Millisecond)
	}
}

// note is the tests' job. Its queue comes from On.
type note struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func (note) Kind() string { return "test.note" }

func enqueue(t *testing.T, j *Jobs, queue string, n int, opts ...Option) {
	t.Helper()
	for i := range n {
		if _, err := j.Enqueue(t.Context(), note{N: i}, append(opts, On(queue))...); err != nil {
			t.Fatal(err)
		}
	}
}

func status(t *testing.T, j *Jobs, queue string) Status {
	t.Helper()
	s, err := j.Status(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

// ledger counts how often each job ran.
type ledger struct {
	mu   sync.Mutex
	runs map[int]int
	n    atomic.Int64
}

func (l *ledger) add(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs == nil {
		l.runs = make(map[int]int)
	}
	l.runs[n]++
	l.n.Add(1)
}

// check fails unless each of the first n jobs ran, and at most once when exactly is set.
func (l *ledger) check(t *testing.T, n int, exactly bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost, twice []string
	for i := range n {
		switch runs := l.runs[i]; {
		case runs == 0:
			lost = append(lost, fmt.Sprint(i))
		case runs > 1:
			twice = append(twice, fmt.Sprint(i))
		}
	}
	if len(lost) > 0 || exactly && len(twice) > 0 || len(l.runs) > n {
		t.Errorf("of %d jobs lost %d (%s), run more than once %d (%s), different jobs seen %d",
			n, len(lost), clip(strings.Join(lost, " ")), len(twice), clip(strings.Join(twice, " ")), len(l.runs))
	}
}

func asUnconfirmed(err error) (*UnconfirmedError, bool) {
	if !errors.Is(err, ErrUnconfirmed) {
		return nil, false
	}
	return errors.AsType[*UnconfirmedError](err)
}
