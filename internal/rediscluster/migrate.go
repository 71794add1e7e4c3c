package rediscluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// migrateWithin is how long the source of a migration waits for the target each time: to connect, to send, to hear its answer.
const migrateWithin = time.Second

// Migration is a slot on its way from one master to another. Until Finish the slot's keys are on either; clients are told
// ASK for those that have moved, and MOVED afterwards.
type Migration struct {
	cluster  *Cluster
	slot     int
	from, to *Node
}

// MigrateSlot moves a slot with its keys to another master and waits until all nodes know.
func (c *Cluster) MigrateSlot(ctx context.Context, slot int, to *Node) error {
	m, err := c.BeginMigration(ctx, slot, to)
	if err != nil || m == nil {
		return err
	}
	for {
		moved, err := m.Move(ctx, 100)
		if err != nil {
			return err
		}
		if moved == 0 {
			return m.Finish(ctx)
		}
	}
}

// LoseSlot gives a slot to another master without its keys and without telling the present one, which learns from the other's
// messages that it has lost the slot and deletes its keys. It returns when all nodes know.
func (c *Cluster) LoseSlot(ctx context.Context, slot int, to *Node) error {
	if len(c.nodes) == 1 {
		return errors.New("rediscluster: a single server has no slots; start six nodes")
	}
	if err := to.client.Do(ctx, "cluster", "setslot", slot, "node", to.id).Err(); err != nil {
		return fmt.Errorf("rediscluster: set slot %d on %s: %w", slot, to.name, err)
	}
	if err := to.client.Do(ctx, "cluster", "bumpepoch").Err(); err != nil {
		return fmt.Errorf("rediscluster: raise the epoch of %s: %w", to.name, err)
	}
	return c.WaitHealthy(ctx)
}

// BeginMigration marks a slot as migrating and moves no key yet. It returns nil when the slot is already there.
func (c *Cluster) BeginMigration(ctx context.Context, slot int, to *Node) (*Migration, error) {
	if len(c.nodes) == 1 {
		return nil, errors.New("rediscluster: a single server has no slots; start six nodes")
	}
	from, err := c.MasterOf(ctx, slot)
	if err != nil {
		return nil, err
	}
	if from == to {
		return nil, nil
	}
	m := &Migration{cluster: c, slot: slot, from: from, to: to}
	if err := m.set(ctx, to, "importing", from.id); err != nil {
		return nil, err
	}
	if err := m.set(ctx, from, "migrating", to.id); err != nil {
		return nil, err
	}
	return m, nil
}

// From is the master that gives the slot away.
func (m *Migration) From() *Node { return m.from }

// Move moves up to n keys and says how many; 0: none is left.
func (m *Migration) Move(ctx context.Context, n int) (int, error) {
	keys, err := m.from.client.ClusterGetKeysInSlot(ctx, m.slot, n).Result()
	if err != nil {
		return 0, fmt.Errorf("rediscluster: keys of slot %d: %w", m.slot, err)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	if _, err := m.migrate(ctx, keys); err != nil {
		return 0, err
	}
	return len(keys), nil
}

// MoveKeys moves these keys. One that the source does not have is an error.
func (m *Migration) MoveKeys(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		said, err := m.migrate(ctx, []string{key})
		if err != nil {
			return err
		}
		if said != "OK" {
			return fmt.Errorf("rediscluster: migrate %q from %s to %s: %s", key, m.from.name, m.to.name, said)
		}
	}
	return nil
}

// migrate sends keys to the target, and returns Redis's answer: NOKEY when the source has none of them.
func (m *Migration) migrate(ctx context.Context, keys []string) (said string, err error) {
	// MIGRATE blocks the source until the target has answered: of two masters that send each other keys, each would wait for the other.
	m.cluster.migrates.Lock()
	defer m.cluster.migrates.Unlock()
	// One that ran out of time may have left a key on both. Clients get it from the source for as long as that has it, so what
	// the target has is older, if anything, and is replaced.
	args := []any{"migrate", "127.0.0.1", strconv.Itoa(m.to.port), "", 0, migrateWithin.Milliseconds(), "replace"}
	if password := m.cluster.opts.Config["requirepass"]; password != "" {
		args = append(args, "auth", password)
	}
	args = append(args, "keys")
	for _, key := range keys {
		args = append(args, key)
	}
	// Longer than the source may take, which else would go on while the next one begins.
	said, err = m.from.client.WithTimeout(4*migrateWithin).Do(ctx, args...).Text()
	if err != nil {
		return "", fmt.Errorf("rediscluster: migrate slot %d from %s to %s: %w", m.slot, m.from.name, m.to.name, err)
	}
	return said, nil
}

// Finish gives the slot to the target and waits until all nodes know. Keys that have not been moved make it fail.
func (m *Migration) Finish(ctx context.Context) error {
	left, err := m.from.client.ClusterCountKeysInSlot(ctx, m.slot).Result()
	if err != nil {
		return fmt.Errorf("rediscluster: keys of slot %d: %w", m.slot, err)
	}
	if left > 0 {
		return fmt.Errorf("rediscluster: slot %d has %d keys left on %s; Move them first", m.slot, left, m.from.name)
	}
	// The target first: were it the last, the slot would have no owner in between.
	if err := m.set(ctx, m.to, "node", m.to.id); err != nil {
		return err
	}
	if err := m.set(ctx, m.from, "node", m.to.id); err != nil {
		return err
	}
	return m.cluster.WaitHealthy(ctx)
}

func (m *Migration) set(ctx context.Context, n *Node, state, id string) error {
	if err := n.client.Do(ctx, "cluster", "setslot", m.slot, state, id).Err(); err != nil {
		return fmt.Errorf("rediscluster: set slot %d %s on %s: %w", m.slot, state, n.name, err)
	}
	return nil
}
