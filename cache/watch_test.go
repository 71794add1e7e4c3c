package cache

import (
	"testing"
	"time"
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
