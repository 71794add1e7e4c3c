package cache

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// A master that hangs costs its budget a few times, and then next to nothing until it answers.
func TestBreaker(t *testing.T) {
	ctx := testContext(t)
	_, leads, victim := breakable(t, ctx, nil)
	s := running(t, leads.store)
	victim.Freeze()
	eventually(t, "the breaker opens", func() bool {
		_, err := leads.Get(ctx, "{x}1")
		return errors.Is(err, errBroken)
	})
	slow, calls, began := 0, 0, time.Now()
	for time.Since(began) < 2*time.Second || calls < 100 { // a replica may take the place of the master meanwhile
		call := time.Now()
		l, err := leads.Load(ctx, "{x}1", loads(lead{Score: 2}))
		if err != nil || l.Score != 2 {
			t.Fatal(l, err)
		}
		if calls++; time.Since(call) > s.opts.RedisTimeout/2 {
			slow++
		}
	}
	if took := time.Since(began); slow > int(took/probeEvery)+2 {
		t.Errorf("%d of %d calls waited for the frozen master in %v", slow, calls, took)
	}
	victim.Thaw()
	eventually(t, "hits again", func() bool {
		if _, err := leads.Load(ctx, "{x}1", loads(lead{Score: 2})); err != nil {
			t.Fatal(err)
		}
		_, err := leads.Get(ctx, "{x}1")
		return err == nil
	})
}

// However many callers there are, and however often it comes and goes, one of them at a time tries a master that hangs.
func TestBreakerOfAFlappingMaster(t *testing.T) {
	ctx := testContext(t)
	_, leads, victim := breakable(t, ctx, nil)
	running(t, leads.store)
	// volley is how 64 callers at once end who wait for the master in vain.
	volley := func() (waited int64) {
		var callers sync.WaitGroup
		var n atomic.Int64
		for range 64 {
			callers.Go(func() {
				if _, err := leads.Get(ctx, "{x}1"); waitedFor(err) && err != ErrMiss {
					n.Add(1)
				}
			})
		}
		callers.Wait()
		return n.Load()
	}
	all := int64(0)
	for round := range 3 {
		victim.Freeze()
		eventually(t, "the breaker opens", func() bool {
			volley()
			_, err := leads.Get(ctx, "{x}1")
			return errors.Is(err, errBroken)
		})
		tried, began := int64(0), time.Now()
		for time.Since(began) < 4*probeEvery {
			tried += volley()
		}
		all += tried
		if took := time.Since(began); tried > int64(took/probeEvery)+1 {
			t.Errorf("round %d: %d calls waited for the frozen master in %v", round, tried, took)
		}
		victim.Thaw()
		eventually(t, "it answers", func() bool { _, err := leads.Get(ctx, "{x}1"); return err == ErrMiss })
	}
	if all == 0 { // a replica may have taken the place of the master, but not each time
		t.Error("nobody has tried it")
	}
}

// What Redis could not be told to forget is forgotten when it is back.
func TestFailedInvalidationsAreMadeGood(t *testing.T) {
	ctx := testContext(t)
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	node := cluster.Nodes()[0]
	s := running(t, newStore(t, client(t, cluster), func(o *Options) { o.RedisTimeout = 100 * time.Millisecond }))
	leads, other := Of[lead](s, "lead"), Of[lead](s, "other")
	for i := range 10 {
		for _, v := range []*View[lead]{leads, other} {
			eventually(t, "set", func() bool { return v.Set(ctx, fmt.Sprint(i), lead{Score: 1}) == nil })
		}
	}
	node.Freeze()
	for i := range 5 {
		if err := leads.Delete(wrote(ctx, at(9)), fmt.Sprint(i)); err == nil {
			t.Error("deleted on a frozen server")
		}
	}
	if _, err := s.Invalidate(ctx, "other:*"); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	node.Thaw()
	eventually(t, "all is made good", func() bool {
		s.debts.mu.Lock()
		defer s.debts.mu.Unlock()
		return len(s.debts.keys) == 0 && len(s.debts.patterns) == 0 && len(s.rules.Load().list) == 0
	})
	for i := range 10 {
		id := fmt.Sprint(i)
		var err error
		eventually(t, "an answer", func() bool {
			_, err = leads.Get(ctx, id)
			return err == nil || err == ErrMiss // and not one of Redis's failing
		})
		if errors.Is(err, ErrMiss) != (i < 5) {
			t.Errorf("key %d: %v", i, err)
		}
		eventually(t, "the other view's is gone", func() bool { _, err := other.Get(ctx, id); return err == ErrMiss })
	}
	// And what the caller had written still holds.
	if _, err := leads.Load(ctx, "1", loads(lead{Score: 1}, at(8))); err != nil {
		t.Fatal(err)
	}
	if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("a load as of 8 landed after a delete at 9: %v", err)
	}
}

func TestDebtsAreBounded(t *testing.T) {
	s := newStore(t, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true}), nil)
	defer s.rdb.Close()
	var d debts
	for i := range maxDebts + 1 {
		d.owe(s, fmt.Sprint(i), scaleaware.Tokens{at(scaleaware.LSN(i)), unknownAt(2)})
	}
	if len(d.keys) != 0 || len(d.patterns) != 1 || d.patterns["*"].floor.For(7) != at(maxDebts) {
		t.Errorf("%d keys, patterns %v", len(d.keys), d.patterns)
	}
	var many debts
	for i := range maxRules + 2 {
		many.owePattern(fmt.Sprint(i, ":*"), scaleaware.Tokens{at(scaleaware.LSN(100 - i))}, false)
	}
	if len(many.patterns) != 1 || many.patterns["*"].floor.For(7) != at(100) {
		t.Errorf("patterns %v", many.patterns)
	}
}

// Of two deletes of a key that could not be done, the one that asks for more is made good for, whichever came last.
func TestDebtsKeepTheHigherFloor(t *testing.T) {
	s := newStore(t, lazy(), nil)
	defer s.rdb.Close()
	var d debts
	d.owe(s, "k", scaleaware.Tokens{at(9), unknownAt(1)})
	first := d.keys["k"]
	d.owe(s, "k", scaleaware.Tokens{at(5), {System: 8, Timeline: 1, LSN: 3}})
	owed := d.keys["k"]
	if diff := cmp.Diff(scaleaware.Tokens{unknownAt(1), at(9), {System: 8, Timeline: 1, LSN: 3}}, owed.asOf); diff != "" {
		t.Error(diff)
	}
	if owed.gen == first.gen {
		t.Error("it cannot be told from what is being paid")
	}
}

// Calls over many keys, and those that change some, leave a broken master alone, too.
func TestBreakerIsForAllCalls(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead")
	s := leads.store
	s.coverage.claimed("a:1", claim{cover: newCover("a:1", s.now())})
	for name, call := range map[string]func() error{
		"get":      func() error { _, err := leads.Get(ctx, "1"); return err },
		"get many": func() error { _, err := leads.GetMany(ctx, []string{"1", "2"}); return err },
		"delete":   func() error { return leads.Delete(ctx, "1", "2") },
		"set":      func() error { return leads.Set(ctx, "1", lead{}) },
	} {
		eventually(t, name+" is refused", func() bool { // unless it comes late, as one of the trials
			s.coverage.guard(0).breaker.Open()
			return errors.Is(call(), errBroken)
		})
		s.coverage.guard(0).breaker.HalfOpen()
		if err := call(); err != nil && !errors.Is(err, ErrMiss) {
			t.Errorf("%s, as a trial: %v", name, err)
		}
		if !s.coverage.guard(0).breaker.IsClosed() {
			t.Errorf("%s was answered, and the master is left alone still", name)
		}
	}
}

// While the master of a tag, or of the store's own keys, hangs, the keys of the others cost no more than they do without the
// process's own level.
func TestHungMasterOfOtherKeysCostsNothing(t *testing.T) {
	ctx := testContext(t)
	cluster, leads, _ := breakable(t, ctx, nil)
	s := running(t, leads.store)
	v := Of[lead](s, "near", InProcess(Local{}), TTL(time.Hour))
	tagged := Of[lead](s, "tagged", InProcess(Local{}), TTL(time.Hour), Tags(func(string, lead) []string { return []string{"all"} }))
	rules, err := cluster.MasterFor(ctx, s.rulesKey())
	if err != nil {
		t.Fatal(err)
	}
	tags, err := cluster.MasterFor(ctx, s.tagKey(hashTag("all")))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		view   *View[lead]
		victim *rediscluster.Node
	}{{"rules", v, rules}, {"tags", tagged, tags}} {
		var healthy string
		for i := 0; healthy == ""; i++ {
			id := fmt.Sprint(i)
			if m, err := cluster.MasterFor(ctx, c.view.prefix+id); err != nil {
				t.Fatal(err)
			} else if m != c.victim {
				healthy = id
			}
		}
		settled(t, ctx, c.view, healthy, loads(lead{Score: 1}))
		c.victim.Freeze()
		g := s.coverage.guard(s.coverage.slot(s.rulesKey()))
		if c.name == "tags" {
			g = s.coverage.guard(s.coverage.slot(s.tagKey(hashTag("all"))))
		}
		eventually(t, c.name+": the process is not told any more", func() bool { return inProcess(c.view, healthy) == nil })
		eventually(t, c.name+": the breaker opens", func() bool {
			g.breaker.RecordFailure()
			return !g.breaker.IsClosed()
		})
		slow, calls, began, usual := 0, 0, time.Now(), []time.Duration(nil)
		for time.Since(began) < time.Second {
			call := time.Now()
			if _, err := c.view.Get(ctx, healthy); err != nil && !errors.Is(err, ErrMiss) {
				t.Fatal(err)
			}
			took := time.Since(call)
			if calls++; took > s.opts.RedisTimeout/2 {
				slow++
			}
			usual = append(usual, took)
		}
		slices.Sort(usual)
		t.Logf("%s: %d calls, half of them within %v, %d slow", c.name, calls, usual[calls/2], slow)
		if calls < 20 { // one who waits each time makes four
			t.Errorf("%s: %d of %d calls on another master waited for the frozen one", c.name, slow, calls)
		}
		c.victim.Thaw()
		eventually(t, c.name+": all are told again", func() bool { return s.coverage.covered(s.now()) == clusterSlots })
		if err := cluster.WaitHealthy(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
