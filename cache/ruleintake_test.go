package cache

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
)

// hooked does something each time that what a pattern names was dropped.
type hooked struct {
	inner
	after func()
}

func (h hooked) dropMatching(pattern string) {
	h.inner.dropMatching(pattern)
	h.after()
}

// An entry that a rule from another process bars, and that the sweep has not reached, does not come back into the process
// while the rule is taken in.
func TestBarredEntryIsNotKeptWhileItsRuleIsTakenIn(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		there := sibling(t, here)
		leads := Of[lead](here, "lead", InProcess(Local{}))
		running(t, here)
		settled(t, ctx, leads, "1", loads(lead{Score: 1}))
		was, _ := leads.near.cache.GetIfPresent("1")
		leads.viewState.inner = hooked{leads, func() { _, _ = leads.Get(ctx, "1") }}
		e, err := there.bar(ctx, "lead:*", nil) // and its sweep has not begun
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the rule is known", func() bool {
			r := here.rules.Load()
			return r.current(here, here.now()) && len(r.list) == 1 && r.list[0].epoch == e
		})
		if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %+v, %v", l, err)
		}
		// A look at an entry that is in doubt does not bring it back, either.
		leads.near.keep("1", leads.near.ticket(here, leads.prefix+"1", "1", here.now()), was)
		again := leads.reconsider("1")
		raw, err := rdb.GetRange(ctx, leads.prefix+"1", 0, headerSize-1).Bytes()
		again(raw, -1, err == nil)
		if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("after a second look: got %+v, %v", l, err)
		}
	})
}
