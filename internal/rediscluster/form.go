package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

const masterCount = 3

// form makes a cluster of the nodes: the first three become masters, the others replicate one each.
func (c *Cluster) form(ctx context.Context) error {
	for i, n := range c.nodes {
		id, err := n.client.Do(ctx, "cluster", "myid").Text()
		if err != nil {
			return fmt.Errorf("rediscluster: id of %s: %w", n.name, err)
		}
		n.id = id
		if i < masterCount {
			from, to := slotCount*i/masterCount, slotCount*(i+1)/masterCount-1
			if err := n.client.ClusterAddSlotsRange(ctx, from, to).Err(); err != nil {
				return fmt.Errorf("rediscluster: give slots to %s: %w", n.name, err)
			}
		}
		// Distinct epochs, before the nodes meet: none has to be negotiated.
		if err := n.client.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
			return fmt.Errorf("rediscluster: set the epoch of %s: %w", n.name, err)
		}
	}
	for i, n := range c.nodes {
		for _, other := range c.nodes[i+1:] {
			err := n.client.Do(ctx, "cluster", "meet", "127.0.0.1", strconv.Itoa(other.port), strconv.Itoa(other.bus)).Err()
			if err != nil {
				return fmt.Errorf("rediscluster: %s meets %s: %w", n.name, other.name, err)
			}
		}
	}
	for i, n := range c.nodes[masterCount:] {
		master := c.nodes[i]
		// Refused as "unknown node" until the two have met.
		if err := poll(ctx, func() error { return n.client.ClusterReplicate(ctx, master.id).Err() }); err != nil {
			return fmt.Errorf("rediscluster: let %s replicate %s: %w", n.name, master.name, err)
		}
	}
	if err := c.WaitHealthy(ctx); err != nil {
		return err
	}
	replicas := 0
	for _, n := range c.nodes {
		v, err := n.view(ctx)
		if err != nil {
			return err
		}
		if v.self.master != "" {
			replicas++
		}
	}
	if replicas != len(c.nodes)-masterCount {
		return errors.New("rediscluster: the cluster came out with " + strconv.Itoa(replicas) + " replicas")
	}
	return nil
}
