package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Slot is the hash slot of a key; 0 for a single server.
func (c *Cluster) Slot(ctx context.Context, key string) (int, error) {
	if len(c.nodes) == 1 {
		return 0, nil
	}
	var last error
	for _, n := range c.nodes {
		if !n.Running() {
			continue
		}
		slot, err := n.client.ClusterKeySlot(ctx, key).Result()
		if err == nil {
			return int(slot), nil
		}
		last = err
	}
	return 0, fmt.Errorf("rediscluster: no node answers: %w", last)
}

// Masters are the nodes that answer and say that they are masters with slots.
func (c *Cluster) Masters(ctx context.Context) ([]*Node, error) {
	if len(c.nodes) == 1 {
		return c.Nodes(), nil
	}
	var masters []*Node
	for i, v := range c.views(ctx) {
		if v != nil && v.self.serves() > 0 {
			masters = append(masters, c.nodes[i])
		}
	}
	if len(masters) == 0 {
		return nil, errors.New("rediscluster: no node says that it is a master")
	}
	return masters, nil
}

// MasterFor is the node that serves a key.
func (c *Cluster) MasterFor(ctx context.Context, key string) (*Node, error) {
	slot, err := c.Slot(ctx, key)
	if err != nil {
		return nil, err
	}
	return c.MasterOf(ctx, slot)
}

// MasterOf is the node that serves a slot.
func (c *Cluster) MasterOf(ctx context.Context, slot int) (*Node, error) {
	if len(c.nodes) == 1 {
		return c.nodes[0], nil
	}
	var master *Node
	var epoch int64
	for i, v := range c.views(ctx) {
		// Two may claim a slot, after Thaw for instance: the higher epoch is right.
		if v != nil && v.self.owns(slot) && (master == nil || v.self.epoch > epoch) {
			master, epoch = c.nodes[i], v.self.epoch
		}
	}
	if master == nil {
		return nil, fmt.Errorf("rediscluster: no node that answers serves slot %d", slot)
	}
	return master, nil
}

// ReplicaOf is a node that answers and says that it replicates the master given, which need not run.
func (c *Cluster) ReplicaOf(ctx context.Context, master *Node) (*Node, error) {
	for i, v := range c.views(ctx) {
		if v != nil && v.self.master == master.id && master.id != "" {
			return c.nodes[i], nil
		}
	}
	return nil, fmt.Errorf("rediscluster: no node that answers replicates %s at %s", master.name, master.Addr())
}

// WaitHealthy waits until all nodes that run (are neither killed nor frozen) agree with each other: all slots are served by
// them, they know and reach each other, and replicas are in sync. It gives up when the context ends or after 30 seconds.
func (c *Cluster) WaitHealthy(ctx context.Context) error {
	err := poll(ctx, func() error {
		var running []*Node
		for _, n := range c.nodes {
			if n.Running() {
				running = append(running, n)
			}
		}
		if len(running) == 0 {
			return errors.New("no node runs")
		}
		var views []*view
		for _, n := range running {
			v, err := n.healthy(ctx)
			if err != nil {
				return err
			}
			views = append(views, v)
		}
		if len(c.nodes) == 1 {
			return nil
		}
		if reason := disagreement(views); reason != "" {
			return errors.New(reason)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("rediscluster: not healthy: %w", err)
	}
	return nil
}

func (n *Node) healthy(ctx context.Context) (*view, error) {
	if len(n.cluster.nodes) == 1 {
		return nil, n.client.Ping(ctx).Err()
	}
	info, err := n.client.ClusterInfo(ctx).Result()
	if err != nil {
		return nil, err
	}
	if !strings.Contains(info, "cluster_state:ok\r\n") || !strings.Contains(info, "cluster_slots_ok:16384\r\n") {
		return nil, fmt.Errorf("%s says: %s", n.name, strings.Join(strings.Fields(info)[:5], " "))
	}
	replication, err := n.client.Info(ctx, "replication").Result()
	if err != nil {
		return nil, err
	}
	if strings.Contains(replication, "role:slave") && !strings.Contains(replication, "master_link_status:up") {
		return nil, fmt.Errorf("%s is not in sync with its master", n.name)
	}
	return n.view(ctx)
}

// views asks all nodes that run at once; a node that does not answer has none.
func (c *Cluster) views(ctx context.Context) []*view {
	views := make([]*view, len(c.nodes))
	if len(c.nodes) == 1 {
		return views
	}
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		if !n.Running() {
			continue
		}
		wg.Go(func() {
			if v, err := n.view(ctx); err == nil {
				views[i] = v
			}
		})
	}
	wg.Wait()
	return views
}
