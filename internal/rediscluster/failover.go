package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Failover makes this replica the master, together with the present master: no write is lost. It returns when the node says
// that it is the master; others may learn of it later, see [Cluster.WaitHealthy].
func (n *Node) Failover(ctx context.Context) error { return n.failover(ctx) }

// ForceFailover makes this replica the master without its master's help, which may be down, if the other masters agree.
func (n *Node) ForceFailover(ctx context.Context) error { return n.failover(ctx, "force") }

// Takeover makes this replica the master without asking anybody.
func (n *Node) Takeover(ctx context.Context) error { return n.failover(ctx, "takeover") }

func (n *Node) failover(ctx context.Context, how ...any) error {
	v, err := n.view(ctx)
	if err != nil {
		return err
	}
	if v.self.master == "" {
		return fmt.Errorf("rediscluster: %s is a master already; fail over its replica, which Cluster.ReplicaOf finds", n.name)
	}
	old := v.members[v.self.master]
	if old == nil {
		return fmt.Errorf("rediscluster: %s does not know its master yet; call WaitHealthy first", n.name)
	}
	var asked time.Time
	err = poll(ctx, func() error {
		// Redis gives a manual failover up after five seconds.
		if time.Since(asked) > 6*time.Second && n.replicates(ctx) {
			if err := n.client.Do(ctx, append([]any{"cluster", "failover"}, how...)...).Err(); err != nil {
				return err
			}
			asked = time.Now()
		}
		v, err := n.view(ctx)
		if err != nil {
			return err
		}
		if v.self.master != "" || v.self.serves() == 0 {
			return errors.New("it is still a replica")
		}
		if v.self.epoch <= old.epoch {
			// Redis 7.0 may count the votes of an earlier election of the same replica: it then wins without a new epoch, and
			// becomes a replica again when it next hears of its master.
			asked = time.Time{}
			return errors.New("it won by old votes")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("rediscluster: fail over to %s: %w", n.name, err)
	}
	return nil
}

func (n *Node) replicates(ctx context.Context) bool {
	v, err := n.view(ctx)
	return err == nil && v.self.master != ""
}
