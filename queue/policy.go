package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Ready reports whether jobs can be stored and kept: Redis answers, and evicts nothing. Errors: ErrEvicting, or why
// Redis cannot be reached.
func (j *Jobs) Ready(ctx context.Context) error {
	return checkPolicy(ctx, j.rdb)
}

// checkPolicy refuses a Redis that may evict anything: jobs, of which enqueues go on to succeed, by one of the allkeys policies, and
// by the volatile ones the keys with an expiry that limits, pauses and unique locks stand on. INFO is asked, because managed Redis
// forbids CONFIG; one that does not tell is taken at its word.
func checkPolicy(ctx context.Context, rdb redis.UniversalClient) error {
	if cluster, ok := rdb.(interface {
		ForEachMaster(ctx context.Context, fn func(ctx context.Context, client *redis.Client) error) error
	}); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return checkNode(ctx, node)
		})
	}
	return checkNode(ctx, rdb)
}

func checkNode(ctx context.Context, node redis.UniversalClient) error {
	info, err := node.Info(ctx, "memory").Result()
	if err != nil {
		return fmt.Errorf("queue: ask Redis for its eviction policy: %w", err)
	}
	if policy := infoField(info, "maxmemory_policy"); policy != "" && policy != "noeviction" {
		return fmt.Errorf("%w (it is %s)", ErrEvicting, policy)
	}
	return nil
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
