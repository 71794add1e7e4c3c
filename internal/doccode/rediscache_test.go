package doccode_test

import (
	"context"
	"time"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/redisclient"
)

func Example_fromRedisCache() {
	_ = func() (*cache.View[Lead], error) {
		rdb := redisclient.New(redisclient.Options("redis-1:6379", "redis-2:6379"))
		store, err := cache.New(rdb, &cache.Options{Prefix: "app:"})
		if err != nil {
			return nil, err
		}
		leads := cache.Of[Lead](store, "lead", cache.TTL(10*time.Minute),
			cache.InProcess(cache.Local{})) // needs store.Run, which hears what changes
		return leads, nil
	}
	_ = func(ctx context.Context, leads *cache.View[Lead], db *dbsplit.DB, id string) (Lead, error) {
		lead, err := leads.Load(ctx, id, func(ctx context.Context, id string) (Lead, error) {
			return leadByID(ctx, db.Read(), id)
		})
		return lead, err
	}
	_ = func(ctx context.Context, leads *cache.View[Lead], id string) error {
		err := leads.Delete(ctx, id) // after the commit, in Redis and in every process
		return err
	}
}
