package main

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

var redisServers = rediscluster.NewShared(&rediscluster.Options{Nodes: 6})

func cacheTested(t *testing.T, change func(*cacheSize)) (string, error) {
	t.Helper()
	servers := redisServers.Get(t)
	size := usualCacheSize()
	size.keys, size.reads = 500, 6000
	size.redisTimeout, size.answerWithin = time.Second, 2500*time.Millisecond // for a busy machine
	change(&size)
	var out bytes.Buffer
	err := cacheTestOn(t.Context(), &out, redisclient.Options(servers.Addrs()...), size)
	return out.String(), err
}

func TestCachePasses(t *testing.T) {
	if out, err := cacheTested(t, func(*cacheSize) {}); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	rdb := redisclient.New(redisclient.Options(redisServers.Get(t).Addrs()...))
	defer rdb.Close()
	err := redisclient.EachMaster(t.Context(), rdb, func(ctx context.Context, master *redis.Client) error {
		if left := master.Keys(ctx, "*").Val(); len(left) > 0 {
			return fmt.Errorf("keys left behind: %q", left)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestABrokenCacheFailsTheRightProbe(t *testing.T) {
	apart := func(s *cacheSize) {
		prefix := s.prefix(0)
		s.prefix = func(instance int) string { return fmt.Sprintf("%sx%d:", prefix, instance) }
	}
	for probe, fault := range map[string]func(*cacheSize){
		"warming fills the cache":            func(s *cacheSize) { s.warm = 100 },
		"hit rate":                           func(s *cacheSize) { s.keys, s.reads = 1_000_000, 300 },
		"one load in a stampede":             apart,
		"a change is seen everywhere":        apart,
		"an invalidation is seen everywhere": apart,
		"extending never shortens": func(s *cacheSize) {
			s.meanwhile = func(ctx context.Context, rdb redis.UniversalClient, key string) error {
				return rdb.PExpire(ctx, key, time.Minute).Err()
			}
		},
		"slow Redis": func(s *cacheSize) { s.redisTimeout = 10 * time.Second },
	} {
		t.Run(probe, func(t *testing.T) {
			out, err := cacheTested(t, func(s *cacheSize) {
				s.only, s.seenWithin = probe, 200*time.Millisecond
				fault(s)
			})
			if err == nil || err.Error() != "failed: "+probe {
				t.Errorf("error %v, want one that names %q:\n%s", err, probe, out)
			}
		})
	}
}
