package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

func newCoverage() *coverage {
	return &coverage{clustered: true, silence: time.Second, newGuard: func(string) *guard { return nil }}
}

func TestSlotGoesToTheClaimOfTheHigherEpoch(t *testing.T) {
	for range 20 { // maps have no order
		c := newCoverage()
		a, b := newCover("a", 0), newCover("b", 0)
		c.claimed("a", claim{cover: a, epoch: 3, slots: "0-99 [7->-x] 200"})
		c.claimed("b", claim{cover: b, epoch: 4, slots: "50-60 [0-<-y]"})
		for slot, want := range map[uint16]*cover{0: a, 7: nil, 49: a, 50: b, 60: b, 61: a, 99: a, 100: nil, 101: nil, 200: a} {
			if got := c.at(slot, 0); !got.rests(want) {
				t.Fatalf("slot %d: %+v, want %+v", slot, got, want)
			}
		}
		c.claimed("b", claim{}) // not heard any more: who had the slots before is not who has them
		if b.heard.Load() != never {
			t.Fatal("the cover has not ended")
		}
		if got := c.at(50, 0); !got.rests(a) { // until a says itself that it has lost them
			t.Fatalf("slot 50: %+v", got)
		}
		c.claimed("a", claim{cover: a, epoch: 3, slots: "0-49"})
		if got := c.at(50, 0); got != nil || c.covered(0) != 50 {
			t.Fatalf("slot 50: %+v, covered %d", got, c.covered(0))
		}
	}
}

func TestSilenceUncovers(t *testing.T) {
	c := newCoverage()
	a := newCover("a", 0)
	c.claimed("a", claim{cover: a, epoch: 1, slots: "0-16383"})
	if !c.at(7, time.Second).rests(a) || c.at(7, time.Second+1) != nil || c.holds(c.slots[7].Load(), 7, time.Second+1) || c.holds(nil, 7, 0) {
		t.Error("wrong")
	}
}

// A slot that went to another master and came back was not heard of in between: what was kept before is not used.
func TestSlotThatCameBackIsUnderAnotherCover(t *testing.T) {
	s := newStore(t, client(t, six.Get(t)), nil)
	leads := Of[lead](s, "lead", InProcess(Local{}))
	slot := s.coverage.slot(leads.prefix + "1")
	s.coverage.claimed("a", claim{cover: newCover("a", s.now()), epoch: 1, slots: "0-16383"})
	ticket := leads.near.ticket(s, leads.prefix+"1", "1", s.now())
	if !s.coverage.holds(ticket.cover, slot, s.now()) {
		t.Fatal("not covered")
	}
	a := s.coverage.claims["a"].cover
	s.coverage.claimed("a", claim{cover: a, epoch: 1, slots: ""})
	s.coverage.claimed("a", claim{cover: a, epoch: 2, slots: "0-16383"})
	if s.coverage.holds(ticket.cover, slot, s.now()) {
		t.Error("it is covered again, without a gap")
	}
}

// A breaker that has opened says nothing of a server that is no master any more.
func TestGuardsOfOldMastersGo(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := newStore(t, rdb, nil)
		has := func(addr string) claim { return claim{cover: newCover(addr, 0), slots: "0-16383"} }
		s.coverage.claimed("old:1", has("old:1"))
		old := s.coverage.guard(0)
		for range breakAfter {
			old.leave(t.Context(), context.DeadlineExceeded)
		}
		s.coverage.claimed("old:1", claim{})
		if s.coverage.guard(0) != old || testutil.CollectAndCount(s.in.broken) != 1 {
			t.Error("who had the slots last is not guarded until another has them")
		}
		s.coverage.claimed("new:1", has("new:1"))
		old.breaker.HalfOpen() // by a call that was under way
		if n := testutil.CollectAndCount(s.in.broken); n != 0 || len(s.coverage.byAddr) != 1 {
			t.Errorf("%d series, guards %v", n, s.coverage.byAddr)
		}
	})
}

// A master that loses a slot because another one has taken it, as the others tell it, removes the slot's keys, and Redis before
// 7.2 says nothing of them. Who has heard of it uses nothing that was kept before, also when the slot has come back, and hears what the new master changes.
func TestSlotLostByGossip(t *testing.T) {
	ctx := testContext(t)
	cluster := six.Get(t)
	s := running(t, newStore(t, client(t, cluster), nil))
	leads := Of[lead](s, "lead", InProcess(Local{}))
	there := Of[lead](sibling(t, s), "lead")
	ids := inSlot("lost", 2)
	used, kept := ids[0], ids[1]
	slot, home, to := route(t, ctx, cluster, leads.prefix+used)
	t.Cleanup(func() {
		if err := cluster.MigrateSlot(context.WithoutCancel(ctx), slot, home); err != nil {
			t.Error(err)
		}
	})
	for _, id := range ids {
		settled(t, ctx, leads, id, loads(lead{Score: 1}))
	}
	for round, to := range []*rediscluster.Node{to, home} {
		before := s.coverage.slots[slot].Load()
		if err := cluster.LoseSlot(ctx, slot, to); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the process hears who has the slot", func() bool {
			now := s.coverage.at(uint16(slot), s.now())
			return now != nil && now != before && now.addr == to.Addr()
		})
		covered(t, s) // so that it is not for want of something else
		for _, id := range ids {
			if r := inProcess(leads, id); r != nil {
				t.Errorf("round %d: %s is %+v still", round, id, r.value)
			}
		}
		if l, err := leads.Get(ctx, used); !errors.Is(err, ErrMiss) {
			t.Errorf("round %d: got %+v, %v", round, l, err)
		}
		settled(t, ctx, leads, used, loads(lead{Score: 2}))
		if err := there.Set(ctx, used, lead{Score: 3}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "what the new master changes is heard of", func() bool {
			_, stays := leads.near.cache.GetIfPresent(used)
			return !stays
		})
		settled(t, ctx, leads, used, loads(lead{Score: 4}))
		l, err := leads.Get(ctx, used)
		wantScore(t, l, err, 3)
	}
	if r := inProcess(leads, kept); r != nil {
		t.Errorf("what was kept before the slot was lost is used when it is back: %+v", r.value)
	}
}
