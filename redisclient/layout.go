package redisclient

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// clusterSlots is how many slots a cluster has.
const clusterSlots = 16384

// layout keeps a cluster client's picture of the cluster from going back. go-redis asks any node which master has which
// slots, and a node may not have heard of a failover yet, the old master above all. A client that had found the new master
// would then go back to the old one, which serves reads from before what the client itself has written. Redis numbers the
// owners of a slot by epoch, so of two answers the one with the higher number is later.
type layout struct {
	mu     sync.Mutex
	owners [clusterSlots]owner
	known  bool // some node has answered
}

// lookUpTimeout is how long a node may take for each of two questions on the layout of a cluster that is known: most of them can tell,
// and go-redis asks one after the other. A silent one that it waits for keeps the client from hearing who has taken that one's place.
const lookUpTimeout = 300 * time.Millisecond

// ask leaves time to ask another node.
func (l *layout) ask(ctx context.Context, question func(ctx context.Context) error) error {
	l.mu.Lock()
	known := l.known
	l.mu.Unlock()
	var most []time.Duration
	if known {
		most = append(most, lookUpTimeout)
	}
	if deadline, limited := ctx.Deadline(); limited {
		most = append(most, time.Until(deadline)/2)
	}
	if len(most) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, slices.Min(most))
		defer cancel()
	}
	return question(ctx)
}

// owner is who had a slot, as of the highest epoch that was heard of. No nodes: not known.
type owner struct {
	epoch uint64
	nodes []redis.ClusterNode // the master first
}

// hook makes a node's answers pass through the layout.
func (l *layout) hook(node *redis.Client) redis.Hook { return layoutHook{l, node} }

type layoutHook struct {
	layout *layout
	node   *redis.Client
}

func (h layoutHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h layoutHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h layoutHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		slots, ok := cmd.(*redis.ClusterSlotsCmd)
		if !ok {
			return next(ctx, cmd)
		}
		if err := h.layout.ask(ctx, func(ctx context.Context) error { return next(ctx, cmd) }); err != nil {
			return err
		}
		// Asked after the slots: who had them and is no master any more is not believed. A server that does not tell epochs
		// has its answer taken as it is; one that does not answer has not.
		var text string
		err := h.layout.ask(ctx, func(ctx context.Context) (err error) {
			text, err = h.node.ClusterNodes(ctx).Result()
			return err
		})
		switch {
		case err == nil:
			slots.SetVal(h.layout.merge(slots.Val(), epochs(text)))
		case !errors.As(err, new(redis.Error)):
			slots.SetErr(err)
			return err
		}
		return nil
	}
}

// epochs reads CLUSTER NODES: id address flags master ping pong epoch link slots… It returns the masters' epochs by node,
// and 0 for a replica, whose line has its master's.
func epochs(text string) map[string]uint64 {
	known := map[string]uint64{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		known[fields[0]] = 0
		if n, err := strconv.ParseUint(fields[6], 10, 64); err == nil && strings.Contains(fields[2], "master") {
			known[fields[0]] = n
		}
	}
	return known
}

// merge takes in a node's answer and returns what is to be believed: of each slot the owner with the highest epoch, as
// long as the node that answers knows it.
func (l *layout) merge(answer []redis.ClusterSlot, epochs map[string]uint64) []redis.ClusterSlot {
	addresses := map[string]redis.ClusterNode{}
	for _, slots := range answer {
		for _, node := range slots.Nodes {
			addresses[node.ID] = node
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = true
	for _, slots := range answer {
		if len(slots.Nodes) == 0 {
			continue
		}
		epoch := epochs[slots.Nodes[0].ID]
		for slot := max(slots.Start, 0); slot <= min(slots.End, clusterSlots-1); slot++ {
			had := &l.owners[slot]
			if len(had.nodes) > 0 && epoch < had.epoch {
				if _, known := epochs[had.nodes[0].ID]; known {
					continue
				}
			}
			*had = owner{epoch, slots.Nodes}
		}
	}
	var merged []redis.ClusterSlot
	for slot := range l.owners {
		nodes := l.owners[slot].nodes
		if len(nodes) == 0 {
			continue
		}
		if n := len(merged); n > 0 && merged[n-1].End == slot-1 && same(merged[n-1].Nodes, nodes) {
			merged[n-1].End = slot
			continue
		}
		merged = append(merged, redis.ClusterSlot{Start: slot, End: slot, Nodes: nodes})
	}
	for i := range merged { // as the node that answers sees them: an address may be relative to it
		nodes := make([]redis.ClusterNode, len(merged[i].Nodes))
		for n, node := range merged[i].Nodes {
			if now, ok := addresses[node.ID]; ok {
				node = now
			}
			nodes[n] = node
		}
		merged[i].Nodes = nodes
	}
	return merged
}

func same(a, b []redis.ClusterNode) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Addr != b[i].Addr {
			return false
		}
	}
	return true
}
