package rediscluster

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

var (
	shared = NewShared(nil)
	single = NewShared(&Options{Nodes: 1, Config: map[string]string{"requirepass": "it's \"quoted\""}})
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(single.Around(shared.Around(m))) }

// healthy is the shared cluster, for a test that may break it: afterwards all nodes run again and agree.
func healthy(t *testing.T) (context.Context, *Cluster) {
	t.Helper()
	c := shared.Get(t)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if n.frozen {
				n.Thaw()
			}
			if !n.Running() {
				if err := n.Start(ctx); err != nil {
					t.Error(err)
				}
			}
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Errorf("after the test: %v", err)
		}
	})
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, c
}

func client(t *testing.T, c *Cluster) *redis.ClusterClient {
	t.Helper()
	rdb := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                      c.Addrs(),
		ContextTimeoutEnabled:      true,
		ClusterStateReloadInterval: 500 * time.Millisecond,
		DialerRetries:              1,
	})
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
