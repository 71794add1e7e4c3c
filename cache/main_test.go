package cache

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

var (
	six = rediscluster.NewShared(nil)
	one = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
)

func TestMain(m *testing.M) {
	if os.Getenv(historyEnv) != "" {
		if err := runWorker(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(stepEnv) != "" {
		fmt.Fprintln(os.Stderr, runStep())
		os.Exit(1)
	}
	goleak.VerifyTestMain(one.Around(six.Around(m)),
		// It sleeps for a second between its looks at a dead server, and only then sees that its client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

type lead struct {
	ID    string
	Score int64
}

// both runs a test on a cluster and on a single server.
func both(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	t.Helper()
	t.Run("cluster", func(t *testing.T) { test(t, client(t, six.Get(t))) })
	t.Run("single", func(t *testing.T) { test(t, client(t, one.Get(t))) })
}

func client(tb testing.TB, c *rediscluster.Cluster) redis.UniversalClient {
	tb.Helper()
	o := redisclient.Options(c.Addrs()...)
	o.DialTimeout, o.PoolTimeout = patience, patience
	rdb := redisclient.New(o)
	tb.Cleanup(func() { rdb.Close() })
	return rdb
}

// patience is for Redis on a busy machine, which is not the fault under test.
const patience = 15 * time.Second

var prefixes atomic.Int64

func newPrefix() string { return fmt.Sprintf("t%d:", prefixes.Add(1)) }

func newStore(tb testing.TB, rdb redis.UniversalClient, set func(*Options)) *Store {
	tb.Helper()
	o := &Options{Prefix: newPrefix(), RedisTimeout: patience}
	if set != nil {
		set(o)
	}
	s, err := New(rdb, o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// sibling is the same cache in another process.
func sibling(tb testing.TB, s *Store) *Store {
	tb.Helper()
	return newStore(tb, s.rdb, func(o *Options) { *o = s.opts })
}

func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// gate is a loader that stops inside until it is let go.
type gate struct {
	entered chan string
	release chan lead
	calls   atomic.Int64
	saw     scaleaware.Tokens // what its reads saw
}

func newGate() *gate {
	return &gate{entered: make(chan string, 64), release: make(chan lead)}
}

func (g *gate) load(ctx context.Context, id string) (lead, error) {
	g.calls.Add(1)
	for _, t := range g.saw {
		scaleaware.WatermarkFrom(ctx).Saw(t)
	}
	g.entered <- id
	select {
	case l := <-g.release:
		return l, nil
	case <-ctx.Done():
		return lead{}, ctx.Err()
	}
}

// loads is a loader that answers at once, as of some position.
func loads(l lead, saw ...scaleaware.Token) Loader[lead] {
	return func(ctx context.Context, id string) (lead, error) {
		for _, t := range saw {
			scaleaware.WatermarkFrom(ctx).Saw(t)
		}
		return lead{ID: id, Score: l.Score}, nil
	}
}

func at(lsn scaleaware.LSN) scaleaware.Token {
	return scaleaware.Token{System: 7, Timeline: 1, LSN: lsn}
}

// wrote is the context of a caller that has written up to a position.
func wrote(ctx context.Context, t scaleaware.Token) context.Context {
	ctx, w := scaleaware.WithWatermark(ctx)
	w.Raise(t)
	return ctx
}

type outcome struct {
	lead lead
	err  error
}

// background loads in another goroutine and hands the outcome over.
func background(ctx context.Context, v *View[lead], id string, load Loader[lead]) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		l, err := v.Load(ctx, id, load)
		done <- outcome{l, err}
	}()
	return done
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			tb.Fatalf("not in time: %s", what)
		}
		select {
		case <-tb.Context().Done():
			tb.Fatal(tb.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func wantScore(tb testing.TB, l lead, err error, score int64) {
	tb.Helper()
	if err != nil || l.Score != score {
		tb.Fatalf("got %+v, %v; want score %d", l, err, score)
	}
}
