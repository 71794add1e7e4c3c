package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// untracked is a client whose user may not ask for tracking.
func untracked(t *testing.T, clustered bool) redis.UniversalClient {
	t.Helper()
	ctx := testContext(t)
	var options *rediscluster.Options
	if !clustered {
		options = &rediscluster.Options{Nodes: 1}
	}
	cluster, err := rediscluster.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	for _, node := range cluster.Nodes() {
		admin := redis.NewClient(&redis.Options{Addr: node.Addr()})
		err := admin.Do(ctx, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-client|tracking").Err()
		admin.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	o := redisclient.Options(cluster.Addrs()...)
	o.Username, o.Password = "app", "secret"
	rdb := redisclient.New(o)
	t.Cleanup(func() { rdb.Close() })
	return rdb
}

// Where servers do not tell what changes, processes tell each other, those that do not run included.
func TestChangesArePublishedWhereServersDoNotTell(t *testing.T) {
	for name, clustered := range map[string]bool{"cluster": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			rdb := untracked(t, clustered)
			here := running(t, newStore(t, rdb, func(o *Options) { o.RedisTimeout = 2 * time.Second })) // who listens waits for so long
			there := running(t, sibling(t, here))
			idle := sibling(t, here)
			option, tagged := InProcess(Local{}), Tags(byCustomer)
			view := func(s *Store) *View[lead] { return Of[lead](s, "lead", option, tagged) }
			for what, change := range map[string]func() error{
				"delete":         func() error { return view(here).Delete(ctx, "1") },
				"idle delete":    func() error { return view(idle).Delete(ctx, "1") },
				"set":            func() error { return view(here).Set(ctx, "1", lead{Score: 2}) },
				"pattern":        func() error { _, err := here.Invalidate(ctx, "lead:?"); return err },
				"idle tag":       func() error { return idle.InvalidateTags(ctx, "customer:1") },
				"rule, no sweep": func() error { _, err := here.bar(ctx, "*", nil); return err },
				"lost on the way": func() error { // its sender dies after the change
					here.changing(ctx, view(here).prefix+"1")
					return rdb.Del(ctx, view(here).prefix+"1").Err()
				},
			} {
				settled(t, ctx, view(there), "1", loads(lead{Score: 1}))
				if err := change(); err != nil {
					t.Fatal(what, err)
				}
				eventually(t, what+" is heard of", func() bool {
					l, err := view(there).Get(ctx, "1")
					return what == "set" && l.Score == 2 || errors.Is(err, ErrMiss)
				})
				if err := view(here).Delete(ctx, "1"); err != nil {
					t.Fatal(err)
				}
				eventually(t, "gone", func() bool { _, err := view(there).Get(ctx, "1"); return errors.Is(err, ErrMiss) })
			}
		})
	}
}

func TestNothingIsPublishedForNobody(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](running(t, newStore(t, client(t, one.Get(t)), nil)), "lead")
	if err := leads.Delete(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	if n, err := leads.store.rdb.Exists(ctx, leads.store.numberKey(), leads.store.markKey()).Result(); n != 0 || err != nil {
		t.Errorf("%d keys, %v", n, err)
	}
}

func TestNumbersOutOfOrder(t *testing.T) {
	s := newStore(t, client(t, one.Get(t)), nil)
	l := &hearing{store: s}
	l.begin(10, time.Second)
	for _, text := range []string{"12\n\"a\"", "13\n\"b\"", "9\n\"c\"", "rubbish", "11\nd"} {
		l.heard(text)
	}
	if l.upTo != 13 || len(l.ahead) != 0 {
		t.Errorf("up to %d, ahead %v", l.upTo, l.ahead)
	}
}

// hindrance makes commands fail, or wait for their callers' end, as it is told.
type hindrance struct {
	redis.Hook
	how   atomic.Pointer[func(ctx context.Context, name string) error]
	after func(name string)
	mu    sync.Mutex
	asked map[string]int
}

func (h *hindrance) set(how func(ctx context.Context, name string) error) { h.how.Store(&how) }

func (h *hindrance) meet(ctx context.Context, cmd redis.Cmder) error {
	h.mu.Lock()
	h.asked[cmd.Name()]++
	h.mu.Unlock()
	if how := h.how.Load(); how != nil {
		return (*how)(ctx, cmd.Name())
	}
	return nil
}

func (h *hindrance) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hindrance) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := h.meet(ctx, cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		err := next(ctx, cmd)
		if h.after != nil {
			h.after(cmd.Name())
		}
		return err
	}
}

func (h *hindrance) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if err := h.meet(ctx, cmd); err != nil {
				for _, cmd := range cmds {
					cmd.SetErr(err)
				}
				return err
			}
		}
		return next(ctx, cmds)
	}
}

// hindered is another client of the same server.
func hindered(t *testing.T, rdb redis.UniversalClient) (redis.UniversalClient, *hindrance) {
	t.Helper()
	o := *rdb.(*redis.Client).Options()
	other, h := redis.NewClient(&o), &hindrance{asked: map[string]int{}}
	other.AddHook(h)
	t.Cleanup(func() { other.Close() })
	return other, h
}

// refusing are servers that refuse commands, as those do whose memory is full.
func refusing(names ...string) func(context.Context, string) error {
	return func(_ context.Context, name string) error {
		if slices.Contains(names, name) {
			return movedError("OOM command not allowed when used memory > 'maxmemory'")
		}
		return nil
	}
}

// A change that gets no number is published all the same, and when that is refused, too, its caller is told.
func TestChangesWithoutNumbersAreHeardOf(t *testing.T) {
	ctx := testContext(t)
	rdb := untracked(t, false)
	there := running(t, newStore(t, rdb, func(o *Options) { o.RedisTimeout = 2 * time.Second }))
	mine, h := hindered(t, rdb)
	here := newStore(t, mine, func(o *Options) { *o = there.opts })
	option, tagged := InProcess(Local{}), Tags(byCustomer)
	view := func(s *Store) *View[lead] { return Of[lead](s, "lead", option, tagged, TTL(time.Hour)) }
	for _, c := range []struct {
		what    string
		refused []string
		change  func() error
		told    bool
	}{
		{"delete", []string{"incr"}, func() error { return view(here).Delete(ctx, "1") }, true},
		{"set", []string{"incr"}, func() error { return view(here).Set(ctx, "1", lead{Score: 2}) }, true},
		{"pattern", []string{"incr"}, func() error { _, err := here.Invalidate(ctx, "lead:?"); return err }, true},
		{"pattern without rule", []string{"incr", "evalsha", "eval"}, func() error { _, err := here.Invalidate(ctx, "lead:?"); return err }, true},
		{"tag", []string{"incr"}, func() error { return here.InvalidateTags(ctx, "customer:1") }, true},
		{"delete", []string{"incr", "publish"}, func() error { return view(here).Delete(ctx, "1") }, false},
		{"set", []string{"incr", "publish"}, func() error { return view(here).Set(ctx, "1", lead{Score: 2}) }, false},
		{"pattern", []string{"incr", "publish"}, func() error { _, err := here.Invalidate(ctx, "lead:?"); return err }, false},
		{"tag", []string{"incr", "publish"}, func() error { return here.InvalidateTags(ctx, "customer:1") }, false},
	} {
		settled(t, ctx, view(there), "1", loads(lead{Score: 1}))
		h.set(refusing(c.refused...))
		if err := c.change(); (err == nil) != c.told {
			t.Errorf("%s, %q refused: %v", c.what, c.refused, err)
		}
		if _, owed := here.debts.owed(view(here).prefix + "1"); owed != (!c.told && (c.what == "delete" || c.what == "set")) {
			t.Errorf("%s, %q refused: owed %v", c.what, c.refused, owed)
		}
		h.set(refusing())
		if c.told {
			eventually(t, c.what+" is heard of", func() bool {
				l, err := view(there).Get(ctx, "1")
				return l.Score == 2 || errors.Is(err, ErrMiss)
			})
		}
		if err := view(here).Delete(ctx, "1"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "gone", func() bool { _, err := view(there).Get(ctx, "1"); return errors.Is(err, ErrMiss) })
	}
	here.debts.mu.Lock()
	defer here.debts.mu.Unlock()
	if len(here.debts.keys) != 0 || len(here.debts.tags) != 1 || len(here.debts.patterns) != 1 {
		t.Errorf("owed: %d keys, %d tags, patterns %v; want those that nobody was told of, but for the key, which was deleted since",
			len(here.debts.keys), len(here.debts.tags), here.debts.patterns)
	}
}

// The master of a bookkeeping key that hangs costs a change of others' keys a part of its time, once in a while; who does not
// know whether somebody listens publishes.
func TestChangesDoNotWaitForTheMark(t *testing.T) {
	ctx := testContext(t)
	rdb, h := hindered(t, client(t, one.Get(t)))
	leads := Of[lead](newStore(t, rdb, func(o *Options) { o.RedisTimeout = 2 * time.Second }), "lead")
	h.set(func(ctx context.Context, name string) error {
		if name != "exists" {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})
	for range 3 {
		if err := leads.Set(ctx, "1", lead{Score: 1}); err != nil {
			t.Error(err)
		}
		if err := leads.Delete(ctx, "1"); err != nil {
			t.Error(err)
		}
	}
	if asked, numbered := h.asked["exists"], h.asked["incr"]; asked > 3 || numbered != 6 || h.asked["publish"] != 6 {
		t.Errorf("asked %d times in six changes, %d numbers were taken, %d published", asked, numbered, h.asked["publish"])
	}
}

// What a slow question has found changes nothing of what a later one has.
func TestSlowLookAtTheMark(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	rdb, h := hindered(t, s.rdb)
	s.rdb = rdb
	held, goOn := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	h.after = func(name string) {
		if name == "exists" && first.CompareAndSwap(false, true) {
			close(held)
			<-goOn
		}
	}
	slow := make(chan listening)
	go func() { slow <- s.listening(ctx) }()
	<-held
	if err := s.mark(ctx); err != nil {
		t.Fatal(err)
	}
	if who := s.listening(ctx); who != somebody {
		t.Errorf("found %d beside the mark", who)
	}
	close(goOn)
	<-slow
	if who := s.listening(ctx); who != somebody {
		t.Errorf("the slow one has found nobody, and so says the next: %d", who)
	}
}

func TestListenersWaitForThoseWhoDoNotPublishYet(t *testing.T) {
	for _, timeout := range []time.Duration{time.Second, patience} {
		s := newStore(t, client(t, one.Get(t)), func(o *Options) { o.RedisTimeout = timeout })
		wait := s.unpublished()
		if wait < markKnown+timeout {
			t.Errorf("RedisTimeout %v: %v", timeout, wait)
		}
		if err := s.mark(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := s.rdb.PTTL(t.Context(), s.markKey()).Val(); left <= wait+markEvery {
			t.Errorf("RedisTimeout %v: the mark ends in %v, and is left anew after %v", timeout, left, wait+markEvery)
		}
	}
}

// What lives by an extension alone is not kept for longer than Redis has it after that was taken back, in any process.
func TestRestoreIsHeardOfWhereServersDoNotTell(t *testing.T) {
	for name, clustered := range map[string]bool{"cluster": true, "single": false} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			rdb := untracked(t, clustered)
			here := running(t, newStore(t, rdb, func(o *Options) { o.RedisTimeout, o.Silence = 2*time.Second, patience }))
			there := running(t, sibling(t, here))
			idle := sibling(t, here)
			views := make([]*View[lead], 2)
			for i, s := range []*Store{here, there} {
				views[i] = Of[lead](s, "lead", TTL(20*time.Second), Jitter(0), InProcess(Local{}))
			}
			for who, by := range map[string]*Store{"who keeps it": here, "who keeps nothing": idle} {
				l, err := views[0].Load(ctx, who, loads(lead{Score: 1}))
				wantScore(t, l, err, 1)
				if _, err := by.ExtendTTLs(ctx, Extension{Factor: 50}); err != nil {
					t.Fatal(err)
				}
				key := views[0].prefix + who
				raw, err := rdb.Get(ctx, key).Bytes()
				if err != nil {
					t.Fatal(err)
				}
				h, payload, err := parseHeader(raw)
				if err != nil {
					t.Fatal(err)
				}
				h.soft, h.hard, h.start = h.soft-30_000, h.hard-30_000, h.start-30_000_000 // past its own end
				if err := rdb.Set(ctx, key, append(appendHeader(nil, h), payload...), 900*time.Second).Err(); err != nil {
					t.Fatal(err)
				}
				for _, v := range views {
					v.near.drop(who)
					eventually(t, "it is kept as long as Redis has it", func() bool {
						l, err := v.Get(ctx, who)
						wantScore(t, l, err, 1)
						r := inProcess(v, who)
						return r != nil && r.end-v.store.now() > time.Minute
					})
				}
				if r, err := by.RestoreTTLs(ctx); err != nil || r.Changed == 0 {
					t.Fatal(r, err)
				}
				for i, v := range views {
					eventually(t, "it ends when it does in Redis", func() bool {
						r := inProcess(v, who)
						return r == nil || r.end-v.store.now() < restoreGrace+time.Second
					})
					if _, err := v.Get(ctx, who); err != nil {
						t.Errorf("store %d: %v", i, err)
					}
				}
			}
		})
	}
}

// A restoration of which nobody could be told is none.
func TestUntoldRestoreIsIncomplete(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, nil)
	number := func() string { return rdb.Get(ctx, s.numberKey()).Val() }
	if _, err := s.RestoreTTLs(ctx); err != nil || number() != "" { // nobody listens
		t.Errorf("%v, number %q was taken", err, number())
	}
	if err := s.mark(ctx); err != nil {
		t.Fatal(err)
	}
	s.marked.Store(nil)
	before := number()
	if _, err := s.RestoreTTLsWith(ctx, Restoration{DryRun: true}); err != nil || number() != before {
		t.Errorf("%v, number %q was taken after %q", err, number(), before)
	}
	if err := errors.Join(rdb.Del(ctx, s.numberKey()).Err(), rdb.RPush(ctx, s.numberKey(), "no number").Err()); err != nil {
		t.Fatal(err)
	}
	if r, err := s.RestoreTTLs(ctx); !errors.Is(err, ErrIncomplete) || r.Complete {
		t.Errorf("%+v, %v", r, err)
	}
	if err := rdb.Del(ctx, s.numberKey()).Err(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.RestoreTTLs(ctx); err != nil || !r.Complete || number() != "1" {
		t.Errorf("%+v, %v, number %q", r, err, number())
	}
}

// A server that is full is one where extensions are taken back.
func TestRestoreOfAFullServerIsTold(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, nil)
	if err := s.mark(ctx); err != nil {
		t.Fatal(err)
	}
	s.marked.Store(nil)
	full(t, ctx)
	if r, err := s.RestoreTTLs(ctx); err != nil || !r.Complete {
		t.Errorf("%+v, %v", r, err)
	}
	if n := rdb.Get(ctx, s.numberKey()).Val(); n != "1" {
		t.Errorf("number %q was taken", n)
	}
}
