package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// replicaWait is how long the relay waits for a replica before it leaves its rows for another time.
const replicaWait = 500 * time.Millisecond

// errNotReplicated is why rows stay in the outbox although their jobs are in Redis.
var errNotReplicated = errors.New("queue: no replica of the master has confirmed, the rows stay in the outbox until one does")

// replicated returns the rows whose jobs would outlive their master, and why others would not.
func (j *Jobs) replicated(ctx context.Context, rows []*outboxRow) (safe []*outboxRow, err error) {
	outcome := map[string]error{}
	for _, row := range rows {
		why, asked := outcome[row.Queue]
		if !asked {
			why = j.awaitReplica(ctx, row.Queue)
			outcome[row.Queue] = why
			err = errors.Join(err, why)
		}
		if why == nil {
			safe = append(safe, row)
		}
	}
	return safe, err
}

// awaitReplica returns nil when a replica has everything that was written to the queue before, or when its master has
// no replica. WAIT speaks of the writes of its own connection; as replication is one stream, a later write of ours
// stands for all before it, whoever made them.
func (j *Jobs) awaitReplica(ctx context.Context, queue string) error {
	key := ownKey(queue, "relayed")
	node, err := j.masterOf(ctx, key)
	if err != nil || node == nil {
		return err
	}
	conn := node.Conn()
	defer conn.Close()
	var info *redis.StringCmd
	_, err = conn.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, key, 1, time.Minute)
		info = pipe.Info(ctx, "replication")
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue: confirm the jobs of %q: %w", queue, err)
	}
	if strings.Contains(info.Val(), "connected_slaves:0") {
		return nil
	}
	n, err := conn.Wait(ctx, 1, replicaWait).Result()
	if err != nil {
		return fmt.Errorf("queue: confirm the jobs of %q: %w", queue, err)
	}
	if n == 0 {
		return fmt.Errorf("%w: queue %q", errNotReplicated, queue)
	}
	return nil
}

// masterOf returns the server that holds key, or nil for a kind of client whose servers cannot be told apart.
func (j *Jobs) masterOf(ctx context.Context, key string) (*redis.Client, error) {
	switch c := j.rdb.(type) {
	case *redis.Client:
		return c, nil
	case *redis.ClusterClient:
		node, err := c.MasterForKey(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("queue: find the master of %q: %w", key, err)
		}
		return node, nil
	default:
		return nil, nil
	}
}

func ids(rows []*outboxRow) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = row.ID
	}
	return out
}
