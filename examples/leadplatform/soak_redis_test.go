package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

const redisMemory = 256 << 20

func (s *soak) redisFaults() []fault {
	master := func(name string, least, most time.Duration, take func(context.Context, *rediscluster.Node) error, bring func(context.Context, *rediscluster.Node) error) fault {
		return fault{name: name, class: "redis", least: least, most: most, begin: func(dice *rand.Rand) (string, func() error, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			node, err := s.redis.MasterOf(ctx, dice.IntN(16384))
			if err != nil {
				return "", nil, err
			}
			return node.Addr(), func() error {
				ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
				defer cancel()
				if err := bring(ctx, node); err != nil {
					return err
				}
				return s.redis.WaitHealthy(ctx)
			}, take(ctx, node)
		}}
	}
	dies := func(f fault) fault {
		f.alarm = []string{"API"}
		return f
	}
	return []fault{
		dies(master("redis master killed", 3*second, 7*second,
			func(_ context.Context, n *rediscluster.Node) error { s.lastMoments(); n.Kill(); return nil },
			func(ctx context.Context, n *rediscluster.Node) error {
				// Restarted before its replica has taken over, it would be an empty master.
				if err := s.takenOver(ctx); err != nil {
					return err
				}
				return n.Start(ctx)
			})),
		dies(master("redis master dies with its last second", 3*second, 7*second, s.loseLastSecond,
			func(ctx context.Context, n *rediscluster.Node) error {
				if err := s.takenOver(ctx); err != nil {
					return err
				}
				return n.Start(ctx)
			})),
		master("redis master off the cluster's bus", 3*second, 7*second,
			func(ctx context.Context, n *rediscluster.Node) error {
				s.lastMoments()
				return dropPackets(ctx, n, "-2")
			},
			func(ctx context.Context, n *rediscluster.Node) error { return dropPackets(ctx, n, "-1") }),
		dies(master("redis master frozen", 3*second, 6*second,
			func(_ context.Context, n *rediscluster.Node) error { s.lastMoments(); n.Freeze(); return nil },
			func(_ context.Context, n *rediscluster.Node) error { n.Thaw(); return nil })),
		master("redis master full", 2*second, 5*second,
			func(ctx context.Context, n *rediscluster.Node) error { return n.SetMaxMemory(ctx, 1<<20, "") },
			func(ctx context.Context, n *rediscluster.Node) error { return n.SetMaxMemory(ctx, redisMemory, "") }),
		master("redis master pauses writes", second, 4*second,
			func(ctx context.Context, n *rediscluster.Node) error {
				return n.Client().Do(ctx, "client", "pause", "60000", "write").Err()
			},
			func(ctx context.Context, n *rediscluster.Node) error {
				return n.Client().Do(ctx, "client", "unpause").Err()
			}),
		{name: "leases of jobs lost", class: "redis", begin: s.loseLeases},
		master("redis master loses the cache", 0, 2*second, loseCache, func(context.Context, *rediscluster.Node) error { return nil }),
		master("redis master cuts its clients off", 0, 2*second, cutClients, func(context.Context, *rediscluster.Node) error { return nil }),
		{name: "redis slots move", class: "redis", begin: s.moveSlots},
		master("redis master fails over as planned", 0, 2*second,
			func(ctx context.Context, n *rediscluster.Node) error {
				replica, err := s.redis.ReplicaOf(ctx, n)
				if err != nil {
					return err
				}
				return replica.Failover(ctx)
			},
			func(context.Context, *rediscluster.Node) error { return nil }),
	}
}

// loseLastSecond kills a master whose replica has not heard from it for a second, and takes its place.
func (s *soak) loseLastSecond(ctx context.Context, n *rediscluster.Node) error {
	replica, err := s.redis.ReplicaOf(ctx, n)
	if err != nil {
		return err
	}
	s.lastMoments()
	replica.Freeze()
	defer replica.Thaw()
	if err := n.Client().ClientKillByFilter(ctx, "TYPE", "replica").Err(); err != nil {
		return err
	}
	s.rest(time.Second) // less than it takes the others to give the replica up
	n.Kill()
	return nil
}

// dropPackets makes a node deaf to one kind of what the others say, to all for "-2", and to nothing for "-1". Clients reach
// it as before.
func dropPackets(ctx context.Context, n *rediscluster.Node, kind string) error {
	return n.Client().Do(ctx, "debug", "drop-cluster-packet-filter", kind).Err()
}

// loseLeases leaves the jobs that run without what tells that their workers live.
func (s *soak) loseLeases(*rand.Rand) (string, func() error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var lost int64
	for _, queue := range []string{"critical", "lead-processing", "normal", "low-priority"} {
		key := "asynq:{" + queue + "}:lease"
		node, err := s.redis.MasterFor(ctx, key)
		if err != nil {
			return "", nil, err
		}
		n, err := node.Client().Del(ctx, key).Result()
		if err != nil {
			return "", nil, err
		}
		lost += n
	}
	return fmt.Sprintf("of %d queues", lost), nil, nil
}

// loseCache takes all of a master's keys that are the cache's: what FLUSHALL or an eviction would take, where the jobs and the
// sessions have servers of their own.
func loseCache(ctx context.Context, n *rediscluster.Node) error {
	for keys := n.Client().Scan(ctx, 0, "app:*", 1000).Iterator(); ; {
		pipe := n.Client().Pipeline()
		for pipe.Len() < 1000 && keys.Next(ctx) {
			pipe.Unlink(ctx, keys.Val())
		}
		if pipe.Len() == 0 {
			return keys.Err()
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
}

// cutClients ends a master's connections, those on which the caches are told of changes among them.
func cutClients(ctx context.Context, n *rediscluster.Node) error {
	return errors.Join(n.Client().ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err(), n.Client().ClientKillByFilter(ctx, "TYPE", "pubsub").Err())
}

// moveSlots moves twenty slots, each to another master, and leaves them there.
func (s *soak) moveSlots(dice *rand.Rand) (string, func() error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 20 {
		masters, err := s.redis.Masters(ctx)
		if err != nil {
			return "", nil, err
		}
		if err := s.redis.MigrateSlot(ctx, dice.IntN(16384), masters[dice.IntN(len(masters))]); err != nil {
			return "", nil, err
		}
	}
	return "20 slots", nil, nil
}

// span is a time in which what Redis acknowledged may be lost with a master, as docs/consistency.md says.
type span struct{ from, to time.Time }

// lastMoments are those of a master, until its replica serves and its clients know.
func (s *soak) lastMoments() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.unsure = append(s.unsure, span{now.Add(-2 * time.Second), now.Add(20 * time.Second)})
}

// takenOver waits until three nodes that answer serve all slots.
func (s *soak) takenOver(ctx context.Context) error {
	for {
		if masters, err := s.redis.Masters(ctx); err == nil && len(masters) == 3 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
