package cache

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

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
