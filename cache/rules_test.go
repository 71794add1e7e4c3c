package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// barred makes a rule and does not sweep, as a process does that dies at that moment.
func barred(t *testing.T, ctx context.Context, s *Store, pattern string) epoch {
	t.Helper()
	e, err := s.bar(ctx, pattern, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// An invalidation holds before one key is swept: here at once, elsewhere as soon as the news is there.
func TestRuleHoldsBeforeTheSweep(t *testing.T) {
	inMode(t, func(t *testing.T, rdb redis.UniversalClient, options ...ViewOption) {
		ctx := testContext(t)
		here := running(t, newStore(t, rdb, nil))
		there := running(t, sibling(t, here))
		a, b := Of[lead](here, "lead", options...), Of[lead](there, "lead", options...)
		for i := range 20 {
			for _, v := range []*View[lead]{a, b, a, b} {
				if _, err := v.Load(ctx, fmt.Sprint(i), loads(lead{Score: 1})); err != nil {
					t.Fatal(err)
				}
			}
		}
		barred(t, ctx, here, "lead:1*")
		for i := range 20 {
			id := fmt.Sprint(i)
			gone := id[0] == '1'
			if _, err := a.Get(ctx, id); errors.Is(err, ErrMiss) != gone {
				t.Errorf("key %s here: %v", id, err)
			}
			eventually(t, "the news is there", func() bool { _, err := b.Get(ctx, id); return errors.Is(err, ErrMiss) == gone })
		}
		if n, err := rdb.Exists(ctx, a.prefix+"1").Result(); n != 1 || err != nil {
			t.Errorf("it was swept: %d, %v", n, err)
		}
		l, err := b.Load(ctx, "1", loads(lead{Score: 2})) // over the entry that is gone
		wantScore(t, l, err, 2)
		for _, v := range []*View[lead]{a, b} {
			l, err := v.Get(ctx, "1")
			wantScore(t, l, err, 2)
		}
	})
}

// A process that begins while a sweep is under way, or was cut short, serves nothing that is to be swept once it is ready.
func TestReadyKnowsTheRules(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		a := Of[lead](here, "lead")
		if err := a.Set(ctx, "1", lead{Score: 1}); err != nil {
			t.Fatal(err)
		}
		barred(t, ctx, here, "*")
		there := sibling(t, here)
		b := Of[lead](there, "lead")
		if err := there.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if l, err := b.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %v, %v of what was invalidated", l, err)
		}
	})
}

// A load that began before a rule does not land on what was loaded after it.
func TestFillBeforeRuleDoesNotReplaceLater(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := running(t, newStore(t, rdb, nil))
		leads, g := Of[lead](here, "lead"), newGate()
		slow := background(ctx, leads, "1", g.load)
		<-g.entered
		barred(t, ctx, here, "*")
		unclaim(t, rdb, leads.prefix+"1")
		l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
		wantScore(t, l, err, 2)
		g.release <- lead{Score: 1}
		<-slow
		l, err = leads.Get(ctx, "1")
		wantScore(t, l, err, 2)
	})
}

// Rules that came and went while a process was cut off make it drop all that it keeps.
func TestMissedRulesDropAll(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	here := running(t, newStore(t, rdb, nil))
	leads := Of[lead](here, "lead", InProcess(Local{}))
	settled(t, ctx, leads, "1", loads(lead{Score: 1}))
	other := sibling(t, here)
	if e := barred(t, ctx, other, "nothing:*"); other.unbar(ctx, e) != nil {
		t.Fatal("not taken away")
	}
	eventually(t, "the news is there", func() bool { return here.rules.Load().count == 1 && here.rules.Load().current(here, here.now()) })
	if inProcess(leads, "1") != nil {
		if other.rules.Load().count != 1 {
			t.Fatal("no rule was counted")
		}
	}
	settled(t, ctx, leads, "1", loads(lead{Score: 1}))
	here.ruling.reading <- struct{}{} // the store follows them by itself, too
	was := *here.rules.Load()
	was.count = 0
	here.rules.Store(&was)
	here.ruling.applied = nil
	<-here.ruling.reading
	if err := here.followRules(ctx); err != nil {
		t.Fatal(err)
	}
	if inProcess(leads, "1") != nil {
		t.Error("a rule was missed, and what it may have named is used")
	}
}

// A caller waits for nobody who reads the rules of a server that hangs for longer than its own time.
func TestRulesAreNotAwaitedPastTheDeadline(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer rdb.Close()
	s := newStore(t, rdb, nil)
	s.ruling.reading <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.followRules(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("followRules = %v", err)
	}
}

// A sweep whose process died is finished by another.
func TestOrphanedSweepIsFinished(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead")
		for i := range 50 {
			if err := leads.Set(ctx, fmt.Sprint(i), lead{}); err != nil {
				t.Fatal(err)
			}
		}
		// An old one: made when the clock stood where it stands for a process long dead.
		e := uint64(time.Now().Add(-time.Hour).UnixMicro())
		if err := ruleScript.Run(ctx, rdb, []string{s.rulesKey()}, e, "lead:*").Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.followRules(ctx); err != nil {
			t.Fatal(err)
		}
		if err := s.reclaimMemory(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if n, err := rdb.Exists(ctx, leads.prefix+fmt.Sprint(i)).Result(); n != 0 || err != nil {
				t.Fatalf("key %d is still there", i)
			}
		}
		if list := s.rules.Load().list; len(list) != 0 {
			t.Errorf("the rule stands: %v", list)
		}
	})
}

// Rules that are made at the same time, here and elsewhere, are as many rules: none takes another's place.
func TestRulesOfOneMomentAllStand(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		there := sibling(t, here)
		Of[lead](here, "lead")
		Of[lead](there, "lead")
		const n = 24
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				s := here
				if i%3 == 0 {
					s = there
				}
				if _, err := s.bar(ctx, fmt.Sprintf("lead:%d", i), nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		rules, err := rdb.HGetAll(ctx, here.rulesKey()).Result()
		if err != nil || len(rules) != n+2 { // and their count, and since when
			t.Errorf("%d rules stand, want %d: %v, %v", len(rules)-2, n, rules, err)
		}
	})
}

// The clock never shows less than it did, whatever happens to its key.
func TestClockSurvivesItsKey(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	ahead := epoch(time.Now().Add(time.Hour).UnixMicro())
	s.clock.learn(ahead)
	for range 3 {
		before := epoch(s.clock.known.Load())
		e, err := s.tick(ctx)
		if err != nil || e <= before {
			t.Errorf("from %d to %d, %v", before, e, err)
		}
		s.rdb.Del(ctx, s.clockKey())
	}
	other := sibling(t, s)
	if _, err := s.tick(ctx); err != nil {
		t.Fatal(err)
	}
	if e := other.epochNow(ctx, true); e != epoch(s.clock.known.Load()) {
		t.Errorf("another process reads %d, want %d", e, s.clock.known.Load())
	}
}

// However many rules are left behind, what they do not bar stays, and they go with what they name.
func TestManyOrphanedSweepsAreFinished(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, nil)
	leads := Of[lead](s, "lead")
	began := uint64(time.Now().Add(-time.Hour).UnixMicro())
	for i := range maxRules + 6 {
		if err := leads.Set(ctx, fmt.Sprint(i), lead{}); err != nil {
			t.Fatal(err)
		}
		if err := ruleScript.Run(ctx, rdb, []string{s.rulesKey()}, began+uint64(i), fmt.Sprint("lead:", i)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := leads.Set(ctx, "before", lead{}); err != nil {
		t.Fatal(err)
	}
	if err := s.followRules(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := leads.Get(ctx, "before"); !errors.Is(err, ErrMiss) {
		t.Errorf("so many rules bar all that is older than they are: %v", err)
	}
	if err := leads.Set(ctx, "after", lead{Score: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.reclaimMemory(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := leads.Get(ctx, "after")
	wantScore(t, l, err, 1)
	l, err = leads.Get(ctx, "before")
	wantScore(t, l, err, 0)
	if left := s.rules.Load().list; len(left) != 0 {
		t.Errorf("%d rules are left", len(left))
	}
	for i := range maxRules + 6 {
		if _, err := leads.Get(ctx, fmt.Sprint(i)); !errors.Is(err, ErrMiss) {
			t.Errorf("key %d is still there: %v", i, err)
		}
	}
}

// A rule takes the place of earlier ones of its pattern, which it implies: however often somebody invalidates in vain, that
// does not end in a rule for everything. Who has heard of each drops nothing else.
func TestRuleTakesThePlaceOfThoseOfItsPattern(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		there := running(t, sibling(t, here))
		leads := Of[lead](there, "lead", InProcess(Local{}))
		other := barred(t, ctx, here, "other:*")
		settled(t, ctx, leads, "1", loads(lead{Score: 1}))
		var last epoch
		for range maxRules + 1 {
			last = barred(t, ctx, here, "nothing:*")
			eventually(t, "the news is there", func() bool {
				r := there.rules.Load()
				return len(r.list) > 0 && r.list[len(r.list)-1].epoch == last && r.current(there, there.now())
			})
			eventually(t, "what no rule names is used", func() bool { return inProcess(leads, "1") != nil })
		}
		list := standing(t, ctx, here)
		if len(list) != 2 || list[0] != (rule{other, "other:*"}) || list[1] != (rule{last, "nothing:*"}) {
			t.Errorf("%v stand", list)
		}
		// One that was late takes nothing away.
		if err := ruleScript.Run(ctx, rdb, []string{here.rulesKey()}, uint64(other-1), "nothing:*").Err(); err != nil {
			t.Fatal(err)
		}
		if list := standing(t, ctx, here); len(list) != 3 || list[2] != (rule{last, "nothing:*"}) {
			t.Errorf("%v stand after a late one", list)
		}
	})
}

// hungMemory lets who reads what is remembered wait until his time has ended.
type hungMemory struct {
	redis.Hook
	key  string
	hung atomic.Bool
}

func (h *hungMemory) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hungMemory) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *hungMemory) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); h.hung.Load() && cmd.Name() == "hgetall" && args[1] == h.key {
			<-ctx.Done()
			cmd.SetErr(ctx.Err())
			return ctx.Err()
		}
		return next(ctx, cmd)
	}
}

// The first rule of a process that has just started bars, here and elsewhere, though the master hangs that has what is
// remembered of others. Those that were lost are found when it answers, and not forgotten over the new one.
func TestFirstRuleNeedsNoMemory(t *testing.T) {
	for name, lost := range map[string]bool{"rules stand": false, "rules were lost": true} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			dead := newStore(t, client(t, one.Get(t)), nil)
			if err := Of[lead](dead, "other").Set(ctx, "1", lead{Score: 1}); err != nil {
				t.Fatal(err)
			}
			barred(t, ctx, dead, "other:*")
			if lost {
				lose(t, ctx, dead, dead.rulesKey())
			}
			s := newStore(t, client(t, one.Get(t)), func(o *Options) {
				*o = dead.opts
				o.RedisTimeout = time.Second
			})
			hook := &hungMemory{key: s.memoryKey()}
			s.rdb.AddHook(hook)
			v := Of[lead](s, "lead")
			if err := v.Set(ctx, "1", lead{Score: 1}); err != nil {
				t.Fatal(err)
			}
			hook.hung.Store(true)
			e, err := s.bar(ctx, "lead:*", scaleaware.Tokens{at(10)})
			if err != nil {
				t.Error(err)
			}
			if list := standing(t, ctx, dead); len(list) == 0 || list[len(list)-1] != (rule{e, "lead:*"}) {
				t.Errorf("%v stand", list)
			}
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("served on: %+v, %v", l, err)
			}
			if _, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(9))); err != nil {
				t.Fatal(err)
			}
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("a load as of 9 landed: %+v, %v", l, err)
			}
			if !s.rules.Load().unsure() || s.Ready(ctx) == nil {
				t.Error("it counts as sure that no rules were lost")
			}
			hook.hung.Store(false)
			if err := s.noteAll(ctx); err != nil { // which is not to hide what is not known
				t.Fatal(err)
			}
			if err := s.Ready(ctx); err != nil {
				t.Error(err)
			}
			if l, err := Of[lead](s, "other").Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("a rule is forgotten: %+v, %v", l, err)
			}
			all := slices.ContainsFunc(standing(t, ctx, s), func(r rule) bool { return r.pattern == "*" })
			if all != lost {
				t.Errorf("%v stand", standing(t, ctx, s))
			}
		})
	}
}

// What is kept in the process is not used while some of the rules may be missing.
func TestRulesThatMayLackSomeAreNotCurrent(t *testing.T) {
	ctx := testContext(t)
	s := running(t, newStore(t, client(t, one.Get(t)), func(o *Options) { o.RedisTimeout = time.Second }))
	hook := &hungMemory{key: s.memoryKey()}
	s.rdb.AddHook(hook)
	hook.hung.Store(true)
	s.ruling.reading <- struct{}{}
	s.rules.Store(nil) // as they were before it ran
	<-s.ruling.reading
	if err := s.followRules(ctx); !errors.Is(err, errUnsure) {
		t.Fatal(err)
	}
	if r := s.rules.Load(); r == nil || r.current(s, s.now()) {
		t.Errorf("%+v", r)
	}
	hook.hung.Store(false)
	eventually(t, "it is known that none is missing", func() bool { return s.rules.Load().current(s, s.now()) })
}
