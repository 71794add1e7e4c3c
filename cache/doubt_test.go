package cache

import (
	"testing"
	"time"
)

// An entry whose time is over by its header, while Redis has it still, is looked at once, and not again and again.
func TestDoubtEndsWithTheEntry(t *testing.T) {
	ctx := testContext(t)
	here := newStore(t, client(t, one.Get(t)), nil)
	leads := Of[lead](here, "lead", TTL(time.Hour), InProcess(Local{}))
	running(t, here)
	settled(t, ctx, leads, "1", loads(lead{Score: 1}))
	r, _ := leads.near.cache.GetIfPresent("1")
	over := r.rest.header
	over.soft = time.Now().Add(-time.Second).UnixMilli()
	leads.near.keep("1", leads.near.ticket(here, leads.prefix+"1", "1", here.now()), &resident[lead]{
		value: r.value, rest: &residentRest{header: over}, kind: over.kind, end: here.now() + time.Hour,
	})
	raw := appendHeader(nil, over)
	leads.near.suspectOf("1")
	again := leads.reconsider("1")
	again(raw, -1, true)
	if _, has := leads.near.cache.GetIfPresent("1"); has {
		t.Error("it is kept, in doubt, and looked at for as long as Redis has it")
	}
}
