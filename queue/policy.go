package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Ready reports whether jobs can be stored and kept: Redis answers, and evicts no job. Errors: ErrEvicting, or why
// Redis cannot be reached.
func (j *Jobs) Ready(ctx context.Context) error {
	return checkPolicy(ctx, j.rdb)
}

// checkPolicy refuses a Redis that may evict keys without expiry, which every job is: enqueues go on to succeed and
// the jobs are gone. The volatile policies take only keys with an expiry, and no job has one. INFO is asked, because
// managed Redis forbids CONFIG.
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
	if policy := infoField(info, "maxmemory_policy"); strings.HasPrefix(policy, "allkeys-") {
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
