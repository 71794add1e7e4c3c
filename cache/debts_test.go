package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// alone is a store on a server of its own, which does not run.
func alone(t *testing.T, ctx context.Context) (*Store, *rediscluster.Node) {
	t.Helper()
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	return newStore(t, client(t, cluster), func(o *Options) { o.RedisTimeout = 100 * time.Millisecond }), cluster.Nodes()[0]
}

// What could not be deleted and was set or deleted since is not deleted again when Redis is back: the newest wins.
func TestNewestWinsOverWhatIsOwed(t *testing.T) {
	ctx := testContext(t)
	s, node := alone(t, ctx)
	v := Of[lead](s, "lead")
	set := func(id string, score int64) {
		t.Helper()
		eventually(t, "set", func() bool { return v.Set(ctx, id, lead{Score: score}) == nil })
	}
	for i := range 4 {
		set(fmt.Sprint(i), 1)
	}
	node.Freeze()
	for i := range 4 {
		if err := v.Delete(wrote(ctx, at(10)), fmt.Sprint(i)); err == nil {
			t.Fatal("deleted on a frozen server")
		}
	}
	if len(s.debts.keys) != 4 {
		t.Fatalf("%d owed", len(s.debts.keys))
	}
	node.Thaw()
	set("0", 2)
	eventually(t, "deleted", func() bool { return v.Delete(ctx, "1") == nil })
	if _, ok := s.debts.owed(v.prefix + "0"); ok {
		t.Error("a delete is owed that a Set came after")
	}
	if _, ok := s.debts.owed(v.prefix + "1"); ok {
		t.Error("a delete is owed that another came after")
	}
	// The later delete asks for no less than what was owed.
	if _, err := v.Load(ctx, "1", loads(lead{Score: 3}, at(9))); err != nil {
		t.Fatal(err)
	}
	if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("a load as of 9 landed after a delete at 10: %+v, %v", l, err)
	}
	if err := s.payDebts(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := v.Get(ctx, "0")
	wantScore(t, l, err, 2)
	for _, id := range []string{"2", "3"} {
		if l, err := v.Get(ctx, id); !errors.Is(err, ErrMiss) {
			t.Errorf("still owed: %+v, %v", l, err)
		}
	}
	if n := len(s.debts.keys); n != 0 {
		t.Errorf("%d are still owed", n)
	}
}

// What was set or deleted while others were made good for is left as it is.
func TestNewestWinsOverWhatIsBeingPaid(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
	key := v.prefix + "1"
	s.debts.owe(s, key, nil)
	if err := v.Set(ctx, "1", lead{Score: 2}); err != nil {
		t.Fatal(err)
	}
	if err := s.payKeys(ctx, []string{key}); err != nil {
		t.Fatal(err)
	}
	l, err := v.Get(ctx, "1")
	wantScore(t, l, err, 2)
}

// A delete that fails while a Set is under way is owed still.
func TestSetSettlesNoLaterDebt(t *testing.T) {
	s := newStore(t, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}), nil)
	defer s.rdb.Close()
	s.debts.owe(s, "k", nil)
	before, _ := s.debts.owed("k")
	s.debts.owe(s, "k", nil)
	s.debts.settle("k", before)
	if _, ok := s.debts.owed("k"); !ok {
		t.Error("what was owed anew counts as settled")
	}
	s.debts.oweTag(s, 1, nil)
	was := s.debts.owedTags([]tagHash{1})[1]
	s.debts.oweTag(s, 1, nil)
	s.debts.settleTag(1, was)
	if len(s.debts.tags) != 1 {
		t.Error("a tag that was owed anew counts as settled")
	}
}

// Tags that could not be invalidated, and entries that could not be set, are made good for.
func TestFailedTagsAndSetsAreMadeGood(t *testing.T) {
	ctx := testContext(t)
	s, node := alone(t, ctx)
	v := Of[lead](s, "lead", Tags(byCustomer))
	plain := Of[lead](s, "plain")
	eventually(t, "stored", func() bool {
		if v.Set(ctx, "1", lead{Score: 1}) != nil || plain.Set(ctx, "1", lead{Score: 1}) != nil {
			return false
		}
		_, err := v.Get(ctx, "1")
		return err == nil
	})
	node.Freeze()
	if err := s.InvalidateTags(wrote(ctx, at(10)), "all"); err == nil {
		t.Fatal("invalidated on a frozen server")
	}
	if err := plain.Set(ctx, "1", lead{Score: 2}); err == nil {
		t.Fatal("set on a frozen server")
	}
	node.Kill() // and with it what was on its way
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stored", func() bool { return plain.Set(ctx, "2", lead{Score: 1}) == nil })
	if _, ok := s.debts.owed(plain.prefix + "1"); !ok {
		t.Error("the Set that failed is not owed")
	}
	eventually(t, "paid", func() bool { return s.payDebts(ctx) == nil })
	if len(s.debts.keys)+len(s.debts.tags) != 0 {
		t.Errorf("%d keys and %d tags are still owed", len(s.debts.keys), len(s.debts.tags))
	}
	n, err := s.rdb.Get(ctx, s.tagKey(hashTag("all"))).Uint64()
	if err != nil || n == 0 {
		t.Errorf("the tag is not raised: %d, %v", n, err)
	}
	states, err := s.tagsOf(ctx, []tagHash{hashTag("all")})
	if err != nil || states[0] == nil || states[0].floor == nil || states[0].floor.tokens.For(7) != at(10) {
		t.Errorf("its floor is %+v, %v", states, err)
	}
}

func TestTagDebtsAreBounded(t *testing.T) {
	s := newStore(t, redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}), nil)
	defer s.rdb.Close()
	for i := range maxDebts + 1 {
		s.debts.oweTag(s, tagHash(i), scaleaware.Tokens{at(scaleaware.LSN(i))})
	}
	if len(s.debts.tags) != 0 || len(s.debts.patterns) != 1 || s.debts.patterns["*"].floor.For(7) != at(maxDebts) {
		t.Errorf("%d tags, patterns %v", len(s.debts.tags), s.debts.patterns)
	}
}

// during calls then once, before the first pipeline with a command.
type during struct {
	redis.Hook
	command string
	then    func()
}

func (d *during) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (d *during) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (d *during) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if then := d.then; then != nil && cmds[0].Name() == d.command {
			d.then = nil
			then()
		}
		return next(ctx, cmds)
	}
}

// An invalidation of a tag that fails while an earlier one is made good for is owed anew.
func TestTagThatFailsWhileItIsPaidIsOwed(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	s.debts.oweTag(s, hashTag("all"), nil)
	hook := &during{command: "eval", then: func() {
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.InvalidateTags(gone, "all"); err == nil {
			t.Error("invalidated by a caller who has gone")
		}
	}}
	s.rdb.AddHook(hook)
	if err := s.payDebts(ctx); err != nil || hook.then != nil {
		t.Fatal(err, hook.then == nil)
	}
	if len(s.debts.tags) != 1 {
		t.Error("nobody owes the later one")
	}
	if err := s.payDebts(ctx); err != nil || len(s.debts.tags) != 0 {
		t.Errorf("%d tags are still owed, %v", len(s.debts.tags), err)
	}
}

// Where no rule can be made, which is what keeps back loads that come later, a sweep goes on. Who wrote is told, and it is made
// good for; who wrote nothing has what he asked for, whatever others are owed.
func TestInvalidateThatMayNotHoldLoadsBackSaysSo(t *testing.T) {
	ctx := testContext(t)
	s, node := alone(t, ctx)
	v := Of[lead](s, "lead")
	set := func() {
		t.Helper()
		eventually(t, "set", func() bool { return v.Set(ctx, "1", lead{Score: 1}) == nil })
	}
	set()
	if err := s.rdb.Set(ctx, s.rulesKey(), "no rules", 0).Err(); err != nil {
		t.Fatal(err)
	}
	wants := func(who string, err error, report Report) {
		t.Helper()
		if err != nil || !report.Complete || report.Changed != 1 {
			t.Errorf("%s: %+v, %v", who, report, err)
		}
	}
	report, err := s.Invalidate(ctx, "lead:*")
	wants("who wrote nothing", err, report)
	if report, err := s.Invalidate(wrote(ctx, at(10)), "lead:*"); !errors.Is(err, ErrIncomplete) || report.Complete {
		t.Errorf("%+v, %v", report, err)
	}
	set()
	report, err = s.Invalidate(ctx, "lead:*")
	wants("who wrote nothing, after one who wrote", err, report)
	scans := func() string {
		calls, _, _ := strings.Cut(node.Client().InfoMap(ctx, "commandstats").Val()["Commandstats"]["cmdstat_scan"], ",")
		return calls
	}
	first := scans()
	for range 3 {
		if err := s.payDebts(ctx); err == nil {
			t.Error("paid while no rule can be made")
		}
	}
	if last := scans(); last != first || first == "" {
		t.Errorf("%s, and then %s: it is swept again", first, last)
	}
	lose(t, ctx, s, s.rulesKey())
	eventually(t, "paid", func() bool { return s.payDebts(ctx) == nil && len(s.debts.patterns) == 0 })
	if _, err := v.Load(ctx, "1", loads(lead{Score: 1}, at(9))); err != nil {
		t.Fatal(err)
	}
	if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("a load as of 9 landed after an invalidation at 10: %+v, %v", l, err)
	}
}

// What was invalidated while others were made good for is not invalidated again.
func TestNewestWinsOverManyThatAreBeingPaid(t *testing.T) {
	for name, c := range map[string]struct {
		owe, invalidate func(ctx context.Context, s *Store) error
	}{
		"pattern": {
			func(_ context.Context, s *Store) error { s.debts.owePattern("lead:*", nil, false); return nil },
			func(ctx context.Context, s *Store) error { _, err := s.Invalidate(ctx, "lead:*"); return err },
		},
		"tag": {
			func(_ context.Context, s *Store) error { s.debts.oweTag(s, hashTag("all"), nil); return nil },
			func(ctx context.Context, s *Store) error { return s.InvalidateTags(ctx, "all") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), nil)
			v := tagged(t, ctx, s)
			s.debts.owe(s, v.prefix+"2", nil) // which is made good for first
			if err := c.owe(ctx, s); err != nil {
				t.Fatal(err)
			}
			hook := &during{command: "evalsha", then: func() {
				if err := errors.Join(c.invalidate(ctx, s), v.Set(ctx, "1", lead{Score: 1})); err != nil {
					t.Error(err)
				}
			}}
			s.rdb.AddHook(hook)
			if err := s.payDebts(ctx); err != nil || hook.then != nil {
				t.Fatal(err, hook.then == nil)
			}
			l, err := v.Get(ctx, "1")
			wantScore(t, l, err, 1)
		})
	}
}

// later makes a store's clock show what it will, that long from now.
func later(s *Store, d time.Duration) { s.born = s.born.Add(-d) }

// While nobody knows whether a rule was made that is owed, it is made again ever more seldom: all that it names is a miss each
// time. When the clock could not be asked, there is none.
func TestOwedPatternsAreTriedMoreAndMoreSeldom(t *testing.T) {
	for name, c := range map[string]struct {
		script      *redis.Script
		least, most int // in a minute
	}{
		"a rule may stand": {ruleScript, 8, 12},
		"no rule stands":   {tickScript, 120, 120},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), nil)
			if err := s.followRules(ctx); err != nil {
				t.Fatal(err)
			}
			hook := &lostAnswer{script: c.script, lose: 1000}
			s.rdb.AddHook(hook)
			s.debts.owePattern("lead:*", scaleaware.Tokens{at(10)}, false)
			for range time.Minute / debtEvery {
				_ = s.payDebts(ctx) // fails, or waits
				later(s, debtEvery)
			}
			if hook.sent < c.least || hook.sent > c.most {
				t.Errorf("it was tried %d times", hook.sent)
			}
			if list := standing(t, ctx, s); len(list) > 1 {
				t.Errorf("%d rules stand", len(list))
			}
			hook.lose = 0
			for range 10 * time.Second / debtEvery {
				if err := s.payDebts(ctx); err != nil {
					t.Fatal(err)
				}
				later(s, debtEvery)
			}
			if len(s.debts.patterns) != 0 {
				t.Errorf("still owed: %v", s.debts.patterns)
			}
		})
	}
}

// What is owed counts as removed only when that came after each of those who are owed it.
func TestOwedPatternsAreSweptForAll(t *testing.T) {
	var d debts
	owed := func(swept bool) {
		t.Helper()
		if got := d.owedPattern("*").swept; got != swept {
			t.Errorf("swept: %v", got)
		}
	}
	d.owePattern("*", nil, true)
	owed(true)
	d.owePattern("lead:*", nil, true)
	owed(true)
	d.owePattern("lead:*", nil, false)
	owed(false)
	d.owePattern("*", nil, true) // whose sweep may have begun before the last one failed
	owed(false)
	d.settlePattern("*", d.owedPattern("*"), false)
	d.owePattern("*", nil, true)
	owed(true)
}

// A tag that is owed while a pattern is made good for does not keep that from being settled, and an invalidation of the
// pattern that succeeds settles it, too.
func TestPatternsAreSettled(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
	for name, pay := range map[string]func() error{
		"by itself":              func() error { return s.payDebts(ctx) },
		"by another of its kind": func() error { _, err := s.Invalidate(ctx, "lead:*"); return err },
	} {
		if err := v.Set(ctx, "1", lead{}); err != nil {
			t.Fatal(err)
		}
		s.debts.owePattern("lead:*", nil, false)
		hook := &during{command: "unlink", then: func() { s.debts.oweTag(s, hashTag("all"), nil) }}
		s.rdb.AddHook(hook)
		if err := pay(); err != nil || hook.then != nil {
			t.Fatal(err, hook.then == nil)
		}
		if len(s.debts.patterns) != 0 || len(s.debts.tags) != 1 {
			t.Errorf("%s: %v and %d tags are owed", name, s.debts.patterns, len(s.debts.tags))
		}
	}
}
