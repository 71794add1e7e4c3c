package redisfleet_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/redisfleet"
	"github.com/scaleaware/scaleaware/redisclient"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

var shared = rediscluster.NewShared(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }

func connect(t *testing.T) redis.UniversalClient {
	t.Helper()
	client := redisclient.New(redisclient.Options(shared.Get(t).Addrs()...))
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func newStore(t *testing.T, client redis.UniversalClient, prefix string) *redisfleet.Store {
	t.Helper()
	s, err := redisfleet.New(client, &redisfleet.Options{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func all(t *testing.T, s *redisfleet.Store) map[string]string {
	t.Helper()
	blobs, err := s.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range blobs {
		out[k] = string(v)
	}
	return out
}

func put(t *testing.T, s *redisfleet.Store, instance, blob string, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), instance, []byte(blob), ttl); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestStoreOnACluster(t *testing.T) {
	client := connect(t)
	s, another := newStore(t, client, "test:one:"), newStore(t, client, "test:two:")
	if got := all(t, s); len(got) != 0 {
		t.Errorf("an empty store has %v", got)
	}
	put(t, s, "api-1", "first", time.Minute)
	put(t, s, "api-1", "second", time.Minute)
	put(t, s, "worker {odd}:name", "\x00binary\xff", time.Minute)
	put(t, another, "api-9", "not ours", time.Minute)
	if diff := cmp.Diff(map[string]string{"api-1": "second", "worker {odd}:name": "\x00binary\xff"}, all(t, s)); diff != "" {
		t.Error(diff)
	}

	slots := map[int64]bool{}
	err := redisclient.EachMaster(t.Context(), client, func(ctx context.Context, node *redis.Client) error {
		keys, err := node.Keys(ctx, "test:one:*").Result()
		for _, key := range keys {
			slots[node.ClusterKeySlot(ctx, key).Val()] = true
			if ttl := node.PTTL(ctx, key).Val(); ttl <= 0 {
				t.Errorf("key %q stays for ever", key)
			}
		}
		return err
	})
	if err != nil || len(slots) != 1 {
		t.Errorf("the keys are in the slots %v, want one (%v)", slices.Collect(maps.Keys(slots)), err)
	}
}

func TestStoreForgetsTheVanished(t *testing.T) {
	client := connect(t)
	s := newStore(t, client, "test:ttl:")
	put(t, s, "gone", "x", 50*time.Millisecond)
	put(t, s, "stays", "y", time.Minute)
	eventually(t, "the snapshot that is not renewed vanishes", func() bool { return len(all(t, s)) == 1 })
	members, err := client.SMembers(t.Context(), "test:ttl:{snapshots}:members").Result()
	if err != nil || !slices.Equal(members, []string{"stays"}) {
		t.Errorf("members are %q, want stays alone (%v)", members, err)
	}
}

func TestStoreGivesUpWithItsContext(t *testing.T) {
	cluster, client := shared.Get(t), connect(t)
	s := newStore(t, client, "test:frozen:")
	put(t, s, "a", "x", time.Minute)
	master, err := cluster.MasterFor(t.Context(), "test:frozen:{snapshots}:members")
	if err != nil {
		t.Fatal(err)
	}
	master.Freeze()
	defer func() {
		master.Thaw()
		if err := cluster.WaitHealthy(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = s.All(ctx)
	if !errors.Is(err, context.DeadlineExceeded) && (err == nil || !strings.Contains(err.Error(), "timeout")) {
		t.Errorf("All with its master frozen: %v, want a timeout", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("All took %v with a deadline of 200 ms", took)
	}
}

// Three processes' worth of Capacity, one of which serves nothing but the report.
func TestCapacityOverRedis(t *testing.T) {
	client := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}()
	start := func(name string) (*metrics.Capacity, *prometheus.GaugeVec, context.CancelFunc) {
		reg := prometheus.NewRegistry()
		tasks, err := metrics.NewGauge(reg, metrics.QueueTasks)
		if err != nil {
			t.Fatal(err)
		}
		capacity, err := metrics.NewCapacity(reg, &metrics.CapacityOptions{
			Interval: 50 * time.Millisecond, Window: time.Second, Instance: name, Store: newStore(t, client, "test:capacity:"),
		})
		if err != nil {
			t.Fatal(err)
		}
		own, stop := context.WithCancel(ctx)
		group.Go(func() error { return capacity.Run(own) })
		return capacity, tasks, stop
	}
	ops, _, _ := start("ops")
	_, first, _ := start("worker-1")
	_, second, kill := start("worker-2")
	first.WithLabelValues("normal", "pending").Set(6000)
	second.WithLabelValues("normal", "pending").Set(6000)
	depth := func() float64 {
		for _, m := range ops.Dashboard().Metrics {
			if m.ID == "queue_depth" && m.Value != nil {
				return *m.Value
			}
		}
		return -1
	}
	eventually(t, "ops reports the workers' queue, once", func() bool {
		d := ops.Dashboard()
		return depth() == 6000 && d.Scope == "fleet" && slices.Equal(d.Instances, []string{"ops", "worker-1", "worker-2"})
	})
	kill()
	eventually(t, "a worker that has died is left out", func() bool {
		return slices.Equal(ops.Dashboard().Instances, []string{"ops", "worker-1"}) && depth() == 6000
	})
}

func TestNewReportsAllMistakes(t *testing.T) {
	_, err := redisfleet.New(nil, &redisfleet.Options{Prefix: "a{b}"})
	for _, want := range []string{"needs a client", "hash tag", "colon"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %q", err, want)
		}
	}
}

func TestPrefixIsChecked(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // never dialled
	t.Cleanup(func() { _ = client.Close() })
	for prefix, want := range map[string]string{
		"app": "colon", ":": "colon", "a*:": "glob", "a?:": "glob", "a[:": "glob", "a]:": "glob", `a\:`: "glob", "{app}:": "braces",
		"": "", "app:": "", "app:fleet:": "",
	} {
		_, err := redisfleet.New(client, &redisfleet.Options{Prefix: prefix})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("prefix %q: %v, want %q", prefix, err, want)
		}
	}
}
