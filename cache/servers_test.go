package cache

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

func TestMemoryWarnings(t *testing.T) {
	both, sessions := []string{queuesName, sessionsName}, []string{sessionsName}
	for _, c := range []struct {
		policy string
		max    float64
		shared []string
		want   string
	}{
		{"noeviction", 0, nil, ""},
		{"noeviction", 0, sessions, "own"},
		{"noeviction", 100, nil, "nothing can be cached"},
		{"allkeys-lru", 100, nil, ""},
		{"allkeys-lru", 100, both, "queues (asynq:*) and sessions"},
		{"volatile-lru", 100, []string{queuesName}, ""},
		{"volatile-ttl", 100, both, "users are logged out"},
		{"volatile-ttl", 100, nil, ""},
	} {
		got := strings.Join(memoryWarnings(info{policy: c.policy, max: c.max}, c.shared), "\n")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}
func (b *syncBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

// A store that begins to run says what the shared Redis's policy will do to the others.
func TestSharedRedisIsWarnedOf(t *testing.T) {
	ctx := testContext(t)
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	rdb := client(t, cluster).(*redis.Client)
	for _, err := range []error{
		rdb.ConfigSet(ctx, "maxmemory", "100mb").Err(), rdb.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err(),
		rdb.SAdd(ctx, "asynq:queues", "default").Err(), rdb.Set(ctx, "scs:session:abc", "x", 0).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var log syncBuffer
	s := running(t, newStore(t, rdb, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
	eventually(t, "the warning", func() bool {
		return strings.Contains(log.String(), "queues (asynq:*) and sessions (scs:session:*)") && strings.Contains(log.String(), "allkeys-lru")
	})
	var servers []Server
	eventually(t, "it is heard of", func() bool { servers, err = s.Servers(ctx); return err == nil && len(servers) == 1 && servers[0].Heard })
	got := servers[0]
	if got.Addr != cluster.Addrs()[0] || got.MemoryMaxBytes != 100<<20 || got.MemoryRatio == nil || *got.MemoryRatio <= 0 || got.Policy != "allkeys-lru" || got.Breaker != "closed" || len(got.Warnings) != 1 {
		t.Errorf("got %+v", got)
	}
	if n, err := rdb.Get(ctx, "scs:session:abc").Result(); n != "x" || err != nil {
		t.Errorf("the session is %q, %v", n, err)
	}
}

// steady starts a cluster of its own in which no replica takes the place of a master that does not answer.
func steady(t *testing.T, ctx context.Context) *rediscluster.Cluster {
	t.Helper()
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Config: map[string]string{
		"cluster-replica-no-failover": "yes", "cluster-require-full-coverage": "no",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	return cluster
}

// timedInfo checks that INFO has a time of its own, beside its caller's.
type timedInfo struct {
	t    *testing.T
	most time.Duration
}

func (h timedInfo) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h timedInfo) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h timedInfo) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if end, bounded := ctx.Deadline(); cmd.Name() == "info" && (!bounded || time.Until(end) > h.most) {
			h.t.Errorf("INFO may wait until %v, for more than %v", end, h.most)
		}
		return next(ctx, cmd)
	}
}

// oneHangs is a store on a cluster of its own, the master that will hang, and one of the others.
func oneHangs(t *testing.T, ctx context.Context, set func(*Options)) (s *Store, victim, other *rediscluster.Node) {
	t.Helper()
	cluster := steady(t, ctx)
	rdb := client(t, cluster)
	s = newStore(t, rdb, func(o *Options) {
		o.RedisTimeout = 2 * time.Second
		set(o)
	})
	rdb.(*redis.ClusterClient).OnNewNode(func(node *redis.Client) { node.AddHook(timedInfo{t: t, most: s.stepTimeout()}) })
	_, victim, other = route(t, ctx, cluster, "asynq:queues")
	t.Cleanup(victim.Thaw)
	return s, victim, other
}

// A master that hangs is named with its error when its time is over, and the others say what they have to say, also of those
// who share them.
func TestServersBesideAMasterThatHangs(t *testing.T) {
	ctx := testContext(t)
	s, victim, other := oneHangs(t, ctx, func(*Options) {})
	if err := other.SetMaxMemory(ctx, 100<<20, "allkeys-lru"); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if err := other.Client().Set(ctx, fmt.Sprint("scs:session:", i), "x", 0).Err(); err == nil {
			break
		} else if !redis.HasErrorPrefix(err, "MOVED") {
			t.Fatal(err)
		}
	}
	if before, err := s.Servers(ctx); err != nil || len(before) != 3 {
		t.Fatalf("%+v, %v", before, err)
	}
	victim.Freeze()
	servers, err := s.Servers(ctx)
	if err != nil || len(servers) != 3 {
		t.Fatalf("%+v, %v", servers, err)
	}
	for _, server := range servers {
		switch told := server.MemoryUsedBytes > 0 && server.Policy != ""; {
		case server.Addr == victim.Addr():
			if server.Error == "" || told {
				t.Errorf("the master that hangs: %+v", server)
			}
		case server.Error != "" || !told:
			t.Errorf("another one: %+v", server)
		case server.Addr == other.Addr():
			if server.MemoryMaxBytes != 100<<20 || len(server.Warnings) != 1 || !strings.Contains(server.Warnings[0], "scs:session") {
				t.Errorf("the one with a limit and sessions: %+v", server)
			}
		}
	}
}
