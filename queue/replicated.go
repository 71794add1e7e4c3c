package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// replicaWait is how long the relay waits for a replica before it leaves its rows for another time.
	replicaWait = 500 * time.Millisecond
	// replicaPatience is how long replicas that are gone are expected back. Sentinel takes half a minute to replace a master.
	replicaPatience = 2 * time.Minute
)

// errNotReplicated is why rows stay in the outbox although their jobs are in Redis.
var errNotReplicated = errors.New("queue: no replica of the master has confirmed, the rows stay in the outbox until one does")

// replicated tells rows whose jobs would outlive their master from those whose would not, and why.
func (j *Jobs) replicated(ctx context.Context, rows []*outboxRow) (safe, alone []*outboxRow, err error) {
	queues := map[string][]*outboxRow{}
	for _, row := range rows {
		queues[row.Queue] = append(queues[row.Queue], row)
	}
	for queue, mine := range queues {
		there, missing, why := j.confirm(ctx, queue, mine)
		safe, alone = append(safe, there...), append(alone, missing...)
		err = errors.Join(err, why)
	}
	return safe, alone, err
}

// confirm asks the queue's master of this moment, which need not be the one that took the jobs, whether it has them, or has
// refused them because of another one's lock, and a replica has that, too. WAIT speaks of the writes of its own connection; as
// replication is one stream, a later write of ours stands for all before it, whoever made them.
func (j *Jobs) confirm(ctx context.Context, queue string, rows []*outboxRow) (safe, missing []*outboxRow, err error) {
	node, clustered, err := j.masterOf(ctx, queue)
	if err != nil {
		return nil, rows, err
	}
	if node == nil {
		return rows, nil, nil
	}
	conn := node.Conn()
	defer conn.Close()
	fail := func(err error) (_, _ []*outboxRow, _ error) {
		return nil, rows, fmt.Errorf("queue: confirm the jobs of %q: %w", queue, err)
	}
	exist := make([]*redis.IntCmd, len(rows))
	_, err = conn.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, row := range rows {
			exist[i] = pipe.Exists(ctx, taskPrefix(queue)+row.ID, refusedKey(row))
		}
		pipe.Set(ctx, ownKey(queue, "relayed"), 1, time.Minute)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	alone, err := j.hasNoReplica(ctx, conn, clustered)
	if err != nil {
		return fail(err)
	}
	if !alone {
		n, err := conn.Wait(ctx, 1, replicaWait).Result()
		if err != nil {
			return fail(err)
		}
		if n == 0 {
			return nil, rows, fmt.Errorf("%w: queue %q", errNotReplicated, queue)
		}
	}
	for i, row := range rows {
		if exist[i].Val() > 0 {
			safe = append(safe, row)
		} else {
			missing = append(missing, row)
		}
	}
	return safe, missing, nil
}

// replicas remembers whether a server that is no part of a cluster has had one.
type replicas struct {
	mu sync.Mutex
	// seen says that it has had one, since is when it was first found without.
	seen  bool
	since time.Time
}

// gone reports, by INFO replication, whether there is nobody to wait for. A server that has had replicas and has none may be cut
// off from them, and replaced by Sentinel as soon as the client hears of that, or just restarted: they are waited for.
func (r *replicas) gone(info string, now time.Time, patience time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !strings.Contains(info, "connected_slaves:0") {
		r.seen, r.since = true, time.Time{}
		return false
	}
	r.seen = r.seen || strings.Contains(info, "repl_backlog_active:1") // which Redis keeps for its last replica
	if !r.seen {
		return true
	}
	if r.since.IsZero() {
		r.since = now
	}
	return now.Sub(r.since) >= patience
}

// hasNoReplica reports whether there is nobody to wait for. A server without a connected replica may be a master
// that was cut off and is about to be replaced, so in a cluster all its replicas must have failed in everybody's view. The
// patience without a cluster ends before a job that is done gives its ID back, as its row would bring it again.
func (j *Jobs) hasNoReplica(ctx context.Context, conn *redis.Conn, clustered bool) (bool, error) {
	info, err := conn.Info(ctx, "replication").Result()
	if err != nil {
		return false, err
	}
	if !clustered {
		return j.replicas.gone(info, time.Now(), min(replicaPatience, j.opts.OutboxRetention/2)), nil
	}
	if !strings.Contains(info, "connected_slaves:0") {
		return false, nil
	}
	nodes, err := conn.ClusterNodes(ctx).Result()
	return err == nil && !listsReplica(nodes), err
}

// listsReplica reads the answer of CLUSTER NODES: id, address, flags, master, … in each line.
func listsReplica(nodes string) bool {
	var myself string
	for line := range strings.Lines(nodes) {
		if f := strings.Fields(line); len(f) > 3 && strings.Contains(f[2], "myself") {
			myself = f[0]
		}
	}
	for line := range strings.Lines(nodes) {
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == myself && !givenUp(f[2]) {
			return true
		}
	}
	return false
}

// givenUp reports agreed failure; "fail?" is one node's suspicion.
func givenUp(flags string) bool {
	for flag := range strings.SplitSeq(flags, ",") {
		if flag == "fail" || flag == "noaddr" {
			return true
		}
	}
	return false
}

// masterOf returns the server that holds a queue, or nil for a kind of client whose servers cannot be told apart.
func (j *Jobs) masterOf(ctx context.Context, queue string) (node *redis.Client, clustered bool, err error) {
	switch c := j.rdb.(type) {
	case *redis.Client:
		return c, false, nil
	case *redis.ClusterClient:
		node, err := c.MasterForKey(ctx, taskPrefix(queue))
		if err != nil {
			return nil, true, fmt.Errorf("queue: find the master of queue %q: %w", queue, err)
		}
		return node, true, nil
	default:
		return nil, false, nil
	}
}

func ids(rows []*outboxRow) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = row.ID
	}
	return out
}
