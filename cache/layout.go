package cache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// layout says, by master, which slots it has and which are on their way.
type layout map[string]place

type place struct {
	node   *redis.Client
	slots  string // the node's own line of CLUSTER NODES from its epoch on; empty on a single node
	moving bool   // slots are on their way to it
}

// layout asks every master about itself, and says of which it got no answer. A single node has one place without slots.
func (s *Store) layout(ctx context.Context) (l layout, silent map[string]error, err error) {
	var mu sync.Mutex
	l, silent = layout{}, make(map[string]error)
	err = redisclient.EachMaster(ctx, s.rdb, func(ctx context.Context, node *redis.Client) error {
		ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
		defer cancel()
		p, addr, err := place{}, node.Options().Addr, error(nil)
		if _, clustered := s.rdb.(*redis.ClusterClient); clustered {
			p, err = placeOf(ctx, node)
		} else if addr == behindSentinel {
			addr = masterAddr(ctx, node)
		}
		p.node = node
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			silent[addr] = err
			return err
		}
		l[addr] = p
		return nil
	})
	return l, silent, err
}

func placeOf(ctx context.Context, node *redis.Client) (place, error) {
	text, err := node.ClusterNodes(ctx).Result()
	if err != nil {
		return place{}, err
	}
	return parsePlace(text)
}

// behindSentinel is what a client that asks Sentinel has for an address.
const behindSentinel = "FailoverClient"

// masterAddr asks a master that Sentinel has named for its address.
func masterAddr(ctx context.Context, node *redis.Client) string {
	info, err := node.ClientInfo(ctx).Result()
	if err != nil || info.LAddr == "" {
		return behindSentinel
	}
	return info.LAddr
}

// parsePlace finds a node's own line: id address flags master ping pong epoch link slots…, where [slot-<-id] is a slot
// that arrives and [slot->-id] one that leaves.
func parsePlace(text string) (place, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !slices.Contains(strings.Split(fields[2], ","), "myself") {
			continue
		}
		if !strings.Contains(fields[2], "master") {
			return place{}, errors.New("cache: the node is no master any more, call again")
		}
		return place{
			slots:  fields[6] + " " + strings.Join(fields[8:], " "),
			moving: strings.Contains(line, "-<-"),
		}, nil
	}
	return place{}, errors.New("cache: the node's own line is missing in CLUSTER NODES")
}

// again names the masters that have to be visited once more after a round of visits that began at before and ended at
// after: those that got slots since, and, after the first round, which visits all at once, those that were getting
// some. A key that leaves a node before it is seen there is on the other node when that is visited afterwards; so
// slots that go on moving as they did need no third visit.
func again(before, after layout, first bool) []string {
	var addrs []string
	for addr, now := range after {
		was, known := before[addr]
		if !known || was.slots != now.slots || first && now.moving {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}
