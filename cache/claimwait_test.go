package cache

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// News of the entry that another process loads wake those who wait for it, however often, and make nobody load beside it.
func TestNewsDoNotEndTheWaitForAClaim(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, one.Get(t)), nil)
	there := sibling(t, here)
	g, other := newGate(), newGate()
	v := Of[lead](there, "lead")
	first := background(ctx, Of[lead](here, "lead"), "1", g.load)
	<-g.entered
	second := background(ctx, v, "1", other.load)
	for range 3 * begins {
		eventually(t, "the other waits", func() bool { return waitsFor(there, v.prefix+"1") || other.calls.Load() > 0 })
		there.waits.wake(v.prefix + "1")
	}
	if n := other.calls.Load(); n > 0 {
		t.Error("it loads beside the one that has the claim")
		go func() { other.release <- lead{} }()
	}
	g.release <- lead{Score: 1}
	<-first
	got := <-second
	wantScore(t, got.lead, got.err, 1)
}

// A load that waits is counted once, however often news make it look again.
func TestLoadThatWaitsIsCountedOnce(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, one.Get(t)), nil)
	there := sibling(t, here)
	g := newGate()
	v := Of[lead](there, "lead")
	first := background(ctx, Of[lead](here, "lead"), "1", g.load)
	<-g.entered
	second := background(ctx, v, "1", loads(lead{Score: 2}))
	for range 5 {
		eventually(t, "it waits", func() bool { return waitsFor(there, v.prefix+"1") })
		there.waits.wake(v.prefix + "1")
	}
	g.release <- lead{Score: 1}
	<-first
	got := <-second
	wantScore(t, got.lead, got.err, 1)
	if n := testutil.ToFloat64(there.in.waited.WithLabelValues("lead")); n != 1 {
		t.Errorf("counted %v times", n)
	}
}
