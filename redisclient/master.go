package redisclient

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
)

// EachMaster calls f for every master at once, with a client of that server alone, and waits for all. A client that is
// not of a cluster is its only master. The error joins those of all masters, each with the server's address; go-redis's
// ForEachMaster returns one of them.
//
// The masters are those of one moment. A client of one server does not follow MOVED and ASK: while slots move, f misses keys
// or is told so by the server.
func EachMaster(ctx context.Context, c redis.UniversalClient, f func(ctx context.Context, master *redis.Client) error) error {
	switch c := c.(type) {
	case *redis.Client:
		return atMaster(f(ctx, c), c)
	case *redis.ClusterClient:
		var mu sync.Mutex
		var errs []error
		err := c.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
			if err := atMaster(f(ctx, master), master); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("redisclient: the masters of the cluster cannot be found: %w", err)
		}
		return errors.Join(errs...)
	}
	return fmt.Errorf("redisclient: EachMaster takes a *redis.Client or a *redis.ClusterClient, not a %T", c)
}

func atMaster(err error, master *redis.Client) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("redisclient: master %s: %w", master.Options().Addr, err)
}
