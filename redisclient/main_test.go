package redisclient_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

const canary = "s3cr3t-c4n4ry"

var (
	shared = rediscluster.NewShared(nil)
	single = rediscluster.NewShared(&rediscluster.Options{Nodes: 1, Config: map[string]string{"requirepass": canary}})
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(single.Around(shared.Around(m))) }

// healthy is the shared cluster, whole before the test and after it, and a client of it.
func healthy(t *testing.T) (context.Context, *rediscluster.Cluster, redis.UniversalClient) {
	t.Helper()
	c := shared.Get(t)
	ctx, cancel := context.WithTimeout(context.Background(), 45*time.Second)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		for _, n := range c.Nodes() {
			if !n.Running() {
				n.Thaw()
			}
			if !n.Running() {
				check(t, n.Start(ctx))
			}
		}
		if err := c.WaitHealthy(ctx); err != nil {
			t.Error(err)
		}
	})
	check(t, c.WaitHealthy(ctx))
	rdb := redisclient.New(redisclient.Options(c.Addrs()...))
	t.Cleanup(func() { rdb.Close() })
	return ctx, c, rdb
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
