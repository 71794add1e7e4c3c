package redisclient

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func node(id, addr string) redis.ClusterNode { return redis.ClusterNode{ID: id, Addr: addr} }

// A node that has not heard of a failover does not lead the client back to the old master.
func TestLayoutNeverGoesBack(t *testing.T) {
	old, promoted, other := node("old", "10.0.0.1:1"), node("new", "10.0.0.2:1"), node("other", "10.0.0.3:1")
	before := []redis.ClusterSlot{{Start: 0, End: 8191, Nodes: []redis.ClusterNode{old, promoted}}, {Start: 8192, End: 16383, Nodes: []redis.ClusterNode{other}}}
	after := []redis.ClusterSlot{{Start: 0, End: 8191, Nodes: []redis.ClusterNode{promoted, old}}, {Start: 8192, End: 16383, Nodes: []redis.ClusterNode{other}}}
	const then = `old 10.0.0.1:1@2 master - 0 0 1 connected 0-8191
new 10.0.0.2:1@2 slave old 0 0 1 connected
other 10.0.0.3:1@2 myself,master - 0 0 2 connected 8192-16383
`
	const now = `old 10.0.0.1:1@2 slave new 0 0 3 connected
new 10.0.0.2:1@2 master - 0 0 3 connected 0-8191
other 10.0.0.3:1@2 myself,master - 0 0 2 connected 8192-16383
`
	var l layout
	for i, step := range []struct {
		slots []redis.ClusterSlot
		nodes string
		want  []redis.ClusterSlot
	}{
		{before, then, before},
		{after, now, after},
		{before, then, after}, // from who has not heard of it
		{before, now, after},  // from who has heard of it between the two questions
		{after, now, after},
	} {
		if diff := cmp.Diff(step.want, l.merge(step.slots, epochs(step.nodes))); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
	// Addresses are as the node that answers sees them.
	moved := []redis.ClusterSlot{{Start: 0, End: 8191, Nodes: []redis.ClusterNode{node("old", "10.1.0.1:1"), node("new", "10.1.0.2:1")}}, {Start: 8192, End: 16383, Nodes: []redis.ClusterNode{other}}}
	if got := l.merge(moved, epochs(then)); got[0].Nodes[0].Addr != "10.1.0.2:1" {
		t.Errorf("the new master is at %v", got[0].Nodes)
	}
	// A cluster that was made anew numbers from the beginning.
	fresh := []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{node("first", "10.0.0.1:1")}}}
	if diff := cmp.Diff(fresh, l.merge(fresh, epochs("first 10.0.0.1:1@2 myself,master - 0 0 1 connected 0-16383\n"))); diff != "" {
		t.Errorf("a new cluster: %s", diff)
	}
}

// Slots that move one by one come with the epoch that their new master took.
func TestLayoutFollowsMigrations(t *testing.T) {
	a, b := node("a", "10.0.0.1:1"), node("b", "10.0.0.2:1")
	var l layout
	l.merge([]redis.ClusterSlot{{Start: 0, End: 99, Nodes: []redis.ClusterNode{a}}, {Start: 100, End: 16383, Nodes: []redis.ClusterNode{b}}},
		map[string]uint64{"a": 1, "b": 2})
	moved := []redis.ClusterSlot{{Start: 0, End: 49, Nodes: []redis.ClusterNode{a}}, {Start: 50, End: 16383, Nodes: []redis.ClusterNode{b}}}
	if diff := cmp.Diff(moved, l.merge(moved, map[string]uint64{"a": 1, "b": 3})); diff != "" {
		t.Error(diff)
	}
	// Back to a, which takes a later epoch for it, while somebody says that b still has them.
	back := []redis.ClusterSlot{{Start: 0, End: 99, Nodes: []redis.ClusterNode{a}}, {Start: 100, End: 16383, Nodes: []redis.ClusterNode{b}}}
	l.merge(back, map[string]uint64{"a": 4, "b": 3})
	if diff := cmp.Diff(back, l.merge(moved, map[string]uint64{"a": 1, "b": 3})); diff != "" {
		t.Error(diff)
	}
}

// Who tells which slots masters have, and not as of when, is not believed: it may be the old master, which has not heard of its fall.
func TestLayoutOfANodeThatFallsSilent(t *testing.T) {
	l := new(layout)
	l.merge([]redis.ClusterSlot{{Start: 0, End: clusterSlots - 1, Nodes: []redis.ClusterNode{node("new", "b:1")}}}, map[string]uint64{"new": 2, "old": 1})
	silent := redis.NewClient(&redis.Options{MaxRetries: -1, DialerRetries: 1, Dialer: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nobody answers")
	}})
	defer silent.Close()
	look := l.hook(silent).ProcessHook(func(_ context.Context, cmd redis.Cmder) error {
		cmd.(*redis.ClusterSlotsCmd).SetVal([]redis.ClusterSlot{{Start: 0, End: clusterSlots - 1, Nodes: []redis.ClusterNode{node("old", "a:1")}}})
		return nil
	})
	cmd := redis.NewClusterSlotsCmd(t.Context(), "cluster", "slots")
	if err := look(t.Context(), cmd); err == nil || cmd.Err() == nil {
		t.Errorf("it was believed: %v, %v", cmd.Val(), err)
	}
}
