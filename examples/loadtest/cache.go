package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// cacheSize says how much the test of the cache does, and what it expects.
type cacheSize struct {
	instances, keys, reads int
	hitRate                float64
	// seenWithin bounds how long another instance may serve what was changed.
	seenWithin time.Duration
	// answerWithin bounds a read while Redis does not answer.
	answerWithin time.Duration
	// only names the one probe to run, empty for all.
	only string
	// prefix is of the instance's keys. In a fleet all have the same.
	prefix func(instance int) string
	// warm are the keys that the warming brings.
	warm int
	// redisTimeout is the store's.
	redisTimeout time.Duration
	// meanwhile runs between the extension of the TTLs and its check.
	meanwhile func(ctx context.Context, rdb redis.UniversalClient, key string) error
}

func usualCacheSize() cacheSize {
	prefix := "perftest-" + strings.ToLower(rand.Text()[:8]) + ":"
	return cacheSize{
		instances: 3, keys: 2000, reads: 30_000, hitRate: 0.8, seenWithin: time.Second, answerWithin: time.Second, warm: 200,
		prefix:    func(int) string { return prefix },
		meanwhile: func(context.Context, redis.UniversalClient, string) error { return nil },
	}
}

// testCache is the runbook's test:performance:cache: on the servers of REDIS_ADDRS or REDIS_URL, or on a cluster of its own.
// All its keys begin with a prefix that nobody else has, and are removed.
func testCache(ctx context.Context, out io.Writer, _ Place, _ []string) error {
	options := redisclient.Options(os.Getenv("REDIS_ADDRS"))
	switch url := os.Getenv("REDIS_URL"); {
	case url != "":
		var err error
		if options, err = redisclient.ParseURL(url); err != nil {
			return err
		}
	case len(options.Addrs) == 0:
		fmt.Fprintln(out, "starting six Redis nodes …")
		cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 6})
		if err != nil {
			return err
		}
		defer cluster.Close()
		options = redisclient.Options(cluster.Addrs()...)
	}
	return cacheTestOn(ctx, out, options, usualCacheSize())
}

func cacheTestOn(ctx context.Context, out io.Writer, options *redis.UniversalOptions, size cacheSize) (err error) {
	t := &cacheTest{size: size, origin: newOrigin(size.keys)}
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer func() {
		stop()
		group.Wait()
		err = errors.Join(err, t.sweep(context.WithoutCancel(ctx)))
		for _, i := range t.instances {
			i.rdb.Close()
		}
	}()
	for n := range size.instances {
		i, err := t.open(options, n)
		if err != nil {
			return err
		}
		t.instances = append(t.instances, i)
		group.Go(func() { _ = i.store.Run(running) })
	}
	for _, i := range t.instances {
		if err := await(ctx, func() bool { return i.store.Ready(ctx) == nil }); err != nil {
			return fmt.Errorf("the cache did not become ready: %w", i.store.Ready(ctx))
		}
	}
	probes := t.probes()
	if size.only != "" {
		probes = slices.DeleteFunc(probes, func(p probe) bool { return p.name != size.only })
	}
	return runProbes(ctx, out, probes)
}

// instance is a store with connections of its own, as a process has them.
type instance struct {
	rdb   redis.UniversalClient
	store *cache.Store
	items *cache.View[item]
	slow  *slowNetwork
}

func (t *cacheTest) open(options *redis.UniversalOptions, n int) (*instance, error) {
	own := *options
	i := &instance{slow: newSlowNetwork(options.Dialer)}
	own.Dialer = i.slow.dial
	i.rdb = redisclient.New(&own)
	var err error
	if i.store, err = cache.New(i.rdb, &cache.Options{Prefix: t.size.prefix(n), RedisTimeout: t.size.redisTimeout}); err != nil {
		return nil, err
	}
	i.items = cache.Of[item](i.store, "item", cache.TTL(10*time.Minute), cache.InProcess(cache.Local{}))
	return i, i.items.DeclareWarm(cache.WarmSet[item]{
		Name: "hottest", Load: t.origin.load,
		Keys: func(context.Context) ([]string, error) { return keys(t.size.warm), nil },
	})
}

// await polls what other processes and background work bring about.
func await(ctx context.Context, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !holds() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// sweep removes the test's keys, those of the stores' own books too. Call it when no store runs.
func (t *cacheTest) sweep(ctx context.Context) error {
	if len(t.instances) == 0 {
		return nil
	}
	return redisclient.EachMaster(ctx, t.instances[0].rdb, func(ctx context.Context, master *redis.Client) error {
		for n := range t.instances {
			found := master.Scan(ctx, 0, t.size.prefix(n)+"*", 1000).Iterator()
			for found.Next(ctx) {
				if err := master.Unlink(ctx, found.Val()).Err(); err != nil {
					return err
				}
			}
			if err := found.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}
