package cache

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A master that answers after a long silence may have been another's replica, or nobody's, meanwhile.
func TestAnswerAfterSilenceBeginsAnotherCover(t *testing.T) {
	s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.Silence = 300 * time.Millisecond })
	w := &watch{store: s, addr: "a"}
	now := func() any { return []any{"1700000000", "0"} }
	if err := w.timed(s.now(), now()); err != nil {
		t.Fatal(err)
	}
	first := s.coverage.at(0, s.now())
	if first == nil {
		t.Fatal("not covered")
	}
	if err := w.timed(s.now(), now()); err != nil || s.coverage.at(0, s.now()) != first {
		t.Fatalf("another cover after no silence, %v", err)
	}
	s.born = s.born.Add(-400 * time.Millisecond)
	if err := w.timed(s.now(), now()); err != nil {
		t.Fatal(err)
	}
	if s.coverage.at(0, s.now()) == first {
		t.Error("what was kept before the silence is used again")
	}
}

// A server that has become a replica tells late, or never, what is changed.
func TestReplicaCoversNothing(t *testing.T) {
	ctx := testContext(t)
	node := one.Get(t).Nodes()[0].Client()
	s := running(t, newStore(t, client(t, one.Get(t)), nil))
	t.Cleanup(func() {
		if err := node.Do(testContext(t), "REPLICAOF", "NO", "ONE").Err(); err != nil {
			t.Error(err)
		}
	})
	if err := node.Do(ctx, "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what a replica says is not trusted", func() bool { return s.coverage.covered(s.now()) == 0 })
}

// FLUSHALL is news of the store's own keys, too, whoever looks at them when.
func TestFlushIsNewsOfTheStoresOwnKeys(t *testing.T) {
	s := newStore(t, client(t, one.Get(t)), nil)
	w := &watch{store: s, addr: "a"}
	rules, clock := s.ruling.fence.Load(), s.clock.fence.Load()
	w.heard(push{"invalidate", nil})
	if s.ruling.fence.Load() == rules || s.clock.fence.Load() == clock || len(s.rulesMoved) != 1 || len(s.clockMoved) != 1 {
		t.Error("the fences have moved, and nobody is told to look")
	}
}

// A master that comes back while the watch before has not ended is watched when that has: two would end each other's covers.
func TestOneWatchPerMaster(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	begun, stopped, goOn := make(chan struct{}, 2), make(chan struct{}, 2), make(chan struct{})
	watch := func(ctx context.Context, _ *redis.Client) {
		begun <- struct{}{}
		<-ctx.Done()
		stopped <- struct{}{}
		<-goOn
	}
	ws, there := watches{}, map[string]*redis.Client{"a:1": redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})}
	defer there["a:1"].Close()
	ws.follow(ctx, there, watch)
	<-begun
	ws.follow(ctx, nil, watch)
	<-stopped
	ws.follow(ctx, there, watch)
	if len(ws) != 1 || len(begun) != 0 {
		t.Fatal("another watch began beside the one that ends")
	}
	close(goOn)
	eventually(t, "it is watched again", func() bool {
		ws.follow(ctx, there, watch)
		return len(begun) == 1
	})
	cancel()
	ws.end()
}
