package cache

import (
	"fmt"
	"testing"
	"time"
)

func TestHotKeys(t *testing.T) {
	var h heat
	for i := range 40_000 {
		h.note("lead", fmt.Sprint("cold", i), 0)
		if i%8 == 0 {
			h.note("lead", "hot", 0)
		}
	}
	if n := h.perSecond("lead", "hot", 0); n < 4000 || n > 6000 {
		t.Errorf("5,000 look-ups in a second count as %v", n)
	}
	if n := len(h.current); n > hotKept {
		t.Errorf("%d keys are counted, the bound is %d", n, hotKept)
	}
	if n := h.perSecond("lead", "hot", 1500*time.Millisecond); n < 4000 {
		t.Errorf("a second later it counts as %v", n)
	}
	if n := h.perSecond("lead", "hot", 3*time.Second); n != 0 {
		t.Errorf("three seconds later it counts as %v", n)
	}
}

// Of a large view the process keeps what is hot.
func TestHotKeysAreKeptInTheProcess(t *testing.T) {
	ctx := testContext(t)
	s := running(t, newStore(t, client(t, one.Get(t)), nil))
	leads := Of[lead](s, "lead", InProcess(Local{HotPerSecond: 50}))
	for i := range 100 {
		if err := leads.Set(ctx, fmt.Sprint(i), lead{Score: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the hot key is kept", func() bool {
		for range 100 {
			l, err := leads.Get(ctx, "7")
			wantScore(t, l, err, 7)
		}
		return local(leads) > 0
	})
	for i := range 100 {
		if _, err := leads.Get(ctx, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if inProcess(leads, fmt.Sprint(i)) != nil && i != 7 {
			t.Errorf("key %d was looked up once, and is kept", i)
		}
	}
	if hot := s.HotKeys(1); len(hot) != 1 || hot[0].View != "lead" || hot[0].Key != "7" || hot[0].PerSecond < 50 {
		t.Errorf("got %+v", hot)
	}
}

// Look-ups of many keys count, but for those in the process and those of a warming.
func TestHotKeysOfMany(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	leads := Of[lead](s, "lead")
	for range 200 {
		leads.missingOf(ctx, []string{"warm"})
	}
	for range 200 { // of which hotSample stand for one
		if _, err := leads.GetMany(ctx, []string{"get"}); err != nil {
			t.Fatal(err)
		}
		if _, err := leads.LoadMany(ctx, []string{"load"}, ofEach(loads(lead{}))); err != nil {
			t.Fatal(err)
		}
	}
	counted := map[string]bool{}
	for _, hot := range s.HotKeys(10) {
		counted[hot.Key] = true
	}
	if len(counted) != 2 || !counted["get"] || !counted["load"] {
		t.Errorf("counted were %v", counted)
	}
}
