package redismetrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/redismetrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

var (
	six = rediscluster.NewShared(nil)
	one = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(one.Around(six.Around(m))) }

// values lists "label… value" of a series' children that are not zero, sorted, with the number of observations of
// histograms.
func values(t *testing.T, reg *prometheus.Registry, s metrics.Series, labels ...string) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, f := range families {
		if f.GetName() != s.Name {
			continue
		}
		for _, m := range f.GetMetric() {
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if v == 0 {
				continue
			}
			line := ""
			for _, l := range m.GetLabel() {
				if slices.Contains(labels, l.GetName()) {
					line += l.GetValue() + " "
				}
			}
			lines = append(lines, line+fmt.Sprint(v))
		}
	}
	slices.Sort(lines)
	return lines
}

// exercise makes calls of all sorts, 11 of them.
func exercise(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	ctx := t.Context()
	want := func(wanted, err error) {
		t.Helper()
		if !errors.Is(err, wanted) || wanted == nil && err != nil {
			t.Fatalf("got %v, want %v", err, wanted)
		}
	}
	want(nil, rdb.Set(ctx, "key", "v", 0).Err())
	want(nil, rdb.Get(ctx, "key").Err())
	want(redis.Nil, rdb.Get(ctx, "none").Err())
	want(nil, rdb.Eval(ctx, "return 1", []string{"key"}).Err())
	want(nil, rdb.Publish(ctx, "channel", "m").Err())
	if err := rdb.LPush(ctx, "key", "x").Err(); err == nil {
		t.Fatal("a string is a list")
	}
	want(redis.Nil, rdb.BLPop(ctx, time.Millisecond, "list").Err())
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "key"); p.Get(ctx, "key"); p.Get(ctx, "none"); return nil })
	want(redis.Nil, err)
	_, err = rdb.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Incr(ctx, "{n}1"); p.Incr(ctx, "{n}2"); return nil })
	want(nil, err)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	want(context.Canceled, rdb.Get(gone, "key").Err())
	late, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer cancel()
	want(context.DeadlineExceeded, rdb.Get(late, "key").Err())
}

func TestCallsAndPool(t *testing.T) {
	for name, shared := range map[string]*rediscluster.Shared{"single": one, "cluster": six} {
		t.Run(name, func(t *testing.T) {
			c := shared.Get(t)
			if err := c.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			rdb := redisclient.New(redisclient.Options(c.Addrs()...))
			defer rdb.Close()
			gather := prometheus.NewRegistry()
			opts := &redismetrics.Options{Name: "app", Registerer: gather}
			if err := redismetrics.Attach(rdb, opts); err != nil {
				t.Fatal(err)
			}
			exercise(t, rdb)
			want := []string{
				"blocking ok 1", "pipeline ok 1", "pubsub ok 1", "read canceled 1", "read ok 2", "read timeout 1", "script ok 1",
				"transaction ok 1", "write ok 1", "write refused 1",
			}
			got := values(t, gather, metrics.RedisCommandDuration, "command", "outcome")
			got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "other ") }) // go-redis's own
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"app 7"}, values(t, gather, metrics.RedisPipelined, "client")); diff != "" {
				t.Error(diff) // 3, and 2 between MULTI and EXEC
			}
			if n := len(values(t, gather, metrics.RedisDialDuration, "outcome")); n == 0 {
				t.Error("no dial was measured")
			}
			if n := len(values(t, gather, metrics.RedisPoolMax, "server")); n == 0 || name == "single" && n != 1 {
				t.Errorf("the pools of %d servers show", n)
			}
			if problems, err := testutil.GatherAndLint(gather); err != nil || len(problems) > 0 {
				t.Errorf("%v %v", problems, err)
			}
			if err := redismetrics.Attach(rdb, opts); err == nil || !strings.Contains(err.Error(), "Options.Name") {
				t.Errorf("a second client of that name: %v", err)
			}
			if err := redismetrics.Attach(rdb, &redismetrics.Options{Name: "other", Registerer: gather}); err != nil {
				t.Errorf("a client of another name: %v", err)
			}
		})
	}
}

// A pool whose connections are all in use shows that, and who waits.
func TestPoolIsFull(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: one.Get(t).Addrs()[0], PoolSize: 1, PoolTimeout: 10 * time.Second, ContextTimeoutEnabled: true})
	defer rdb.Close()
	reg := prometheus.NewRegistry()
	if err := redismetrics.Attach(rdb, &redismetrics.Options{Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	conn := rdb.Conn()
	if err := conn.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if used, most := values(t, reg, metrics.RedisPoolUsed), values(t, reg, metrics.RedisPoolMax); used[0] != "1" || most[0] != "1" {
		t.Errorf("used %v of %v", used, most)
	}
	waited := make(chan error, 1)
	go func() { waited <- rdb.Ping(context.Background()).Err() }()
	for end := time.Now().Add(10 * time.Second); len(values(t, reg, metrics.RedisPoolWaiters)) == 0; {
		if time.Now().After(end) {
			t.Fatal("no waiter shows")
		}
	}
	_ = conn.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if got := values(t, reg, metrics.RedisPoolWait); len(got) == 0 {
		t.Error("nobody has waited")
	}
	if got := values(t, reg, metrics.RedisPoolWaiters); len(got) != 0 {
		t.Errorf("still waiting: %v", got)
	}
}

func TestNetworkErrors(t *testing.T) {
	reg := prometheus.NewRegistry()
	h, err := redismetrics.NewHook(&redismetrics.Options{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	for _, failure := range []error{
		io.EOF, net.ErrClosed, fmt.Errorf("x: %w", redis.ErrPoolTimeout), &net.OpError{Op: "read", Err: context.DeadlineExceeded},
		fmt.Errorf("x: %w", context.Canceled), fmt.Errorf("x: %w", redis.Nil), redis.TxFailedErr,
	} {
		_ = h.ProcessHook(func(context.Context, redis.Cmder) error { return failure })(t.Context(), redis.NewCmd(t.Context(), "made-up"))
		_, _ = h.DialHook(func(context.Context, string, string) (net.Conn, error) { return nil, failure })(t.Context(), "tcp", "x")
	}
	want := []string{"canceled 1", "network 2", "ok 2", "timeout 2"}
	if diff := cmp.Diff(want, values(t, reg, metrics.RedisCommandDuration, "outcome")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, values(t, reg, metrics.RedisDialDuration, "outcome")); diff != "" {
		t.Error(diff)
	}
}

func TestHookAllocatesNothing(t *testing.T) {
	h, err := redismetrics.NewHook(nil)
	if err != nil {
		t.Fatal(err)
	}
	cmd := redis.NewStringCmd(t.Context(), "get", "key")
	process := h.ProcessHook(func(context.Context, redis.Cmder) error { return nil })
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { _ = process(ctx, cmd) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHook(b *testing.B) {
	h, err := redismetrics.NewHook(nil)
	if err != nil {
		b.Fatal(err)
	}
	cmd := redis.NewStringCmd(b.Context(), "get", "key")
	process := h.ProcessHook(func(context.Context, redis.Cmder) error { return nil })
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_ = process(ctx, cmd)
	}
}

// Nodes come and go, each with an address of its own: those that the client has let go are let go here, too.
func TestNodesThatLeaveAreForgotten(t *testing.T) {
	ring := redis.NewRing(&redis.RingOptions{})
	defer ring.Close()
	registry := prometheus.NewRegistry()
	if err := redismetrics.Attach(ring, &redismetrics.Options{Registerer: registry}); err != nil {
		t.Fatal(err)
	}
	var left []weak.Pointer[redis.Client]
	ring.OnNewNode(func(node *redis.Client) { left = append(left, weak.Make(node)) })
	for n := range 10 {
		ring.SetAddrs(map[string]string{"one": fmt.Sprintf("127.0.0.1:%d", n+1)})
	}
	if len(left) != 10 {
		t.Fatalf("%d nodes", len(left))
	}
	left = left[:9]
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		runtime.GC()
		left = slices.DeleteFunc(left, func(p weak.Pointer[redis.Client]) bool { return p.Value() == nil })
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d nodes that have left are kept", len(left))
		}
	}
	if n, err := testutil.GatherAndCount(registry, metrics.RedisPoolMax.Name); err != nil || n != 1 {
		t.Errorf("%d pools are told, %v; want that of the one node", n, err)
	}
}
