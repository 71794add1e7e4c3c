package peers

import (
	"context"
	"time"

	"github.com/go-redis/cache/v9"
	"github.com/redis/go-redis/v9"
)

type lead struct{ ID, Name string }

func leadByID(context.Context, string) (*lead, error) { return nil, nil }

func Example_redisCache() {
	_ = func() *cache.Cache {
		ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"server1": "redis-1:6379", "server2": "redis-2:6379"}})
		mycache := cache.New(&cache.Options{
			Redis:      ring,
			LocalCache: cache.NewTinyLFU(1000, time.Minute),
		})
		return mycache
	}
	_ = func(ctx context.Context, mycache *cache.Cache, id string) (*lead, error) {
		l := new(lead)
		err := mycache.Once(&cache.Item{
			Ctx:   ctx,
			Key:   "lead:" + id,
			Value: l,
			TTL:   10 * time.Minute,
			Do:    func(*cache.Item) (any, error) { return leadByID(ctx, id) },
		})
		return l, err
	}
	_ = func(ctx context.Context, mycache *cache.Cache, id string) error {
		err := mycache.Delete(ctx, "lead:"+id) // in Redis and in this process
		return err
	}
}
