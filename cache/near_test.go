package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// running runs a store until the test ends, and waits until all of Redis is heard of.
func running(t *testing.T, s *Store) *Store {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	if s.rdb != nil {
		covered(t, s)
	}
	return s
}

func covered(t *testing.T, s *Store) {
	t.Helper()
	eventually(t, "all slots are heard of", func() bool {
		now := s.now()
		return s.coverage.covered(now) == clusterSlots && s.rules.Load().current(s, now) && s.clockCurrent()
	})
}

// local counts hits in the process.
func local(v *View[lead]) int64 {
	v.settle()
	return v.window.sum(time.Now())[resultL1]
}

// resident loads a key until it is kept in the process.
func settled(t *testing.T, ctx context.Context, v *View[lead], id string, load Loader[lead]) {
	t.Helper()
	eventually(t, "a hit in the process", func() bool {
		before := local(v)
		if _, err := v.Load(ctx, id, load); err != nil {
			t.Fatal(err)
		}
		return local(v) > before
	})
}

// inProcess returns what the process has of id and may give to anybody, or nil.
func inProcess(v *View[lead], id string) *resident[lead] {
	r, _, ok := v.kept(id, nil)
	if !ok {
		return nil
	}
	return r
}

func TestHitInProcessCostsNoCommand(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](running(t, newStore(t, rdb, nil)), "lead", InProcess(Local{}))
		settled(t, ctx, leads, "1", loads(lead{Score: 1}))
		before := local(leads)
		for range 100 {
			l, err := leads.Get(ctx, "1")
			wantScore(t, l, err, 1)
		}
		if n := local(leads) - before; n != 100 {
			t.Errorf("%d of 100 hits in the process", n)
		}
		found, err := leads.GetMany(ctx, []string{"1"})
		if err != nil || found["1"].Score != 1 || local(leads)-before != 101 {
			t.Errorf("GetMany: %v, %v, %d hits in the process", found, err, local(leads)-before)
		}
	})
}

func TestHitInProcessAllocatesNothing(t *testing.T) {
	ctx := testContext(t)
	s := running(t, newStore(t, client(t, one.Get(t)), nil))
	for name, leads := range map[string]*View[lead]{
		"plain":    Of[lead](s, "lead", InProcess(Local{})),
		"with tag": Of[lead](s, "tagged", InProcess(Local{}), Tags(func(string, lead) []string { return []string{"all"} })),
	} {
		settled(t, ctx, leads, "1", loads(lead{Score: 1}))
		before := local(leads)
		const runs = 1000
		if n := testing.AllocsPerRun(runs, func() { _, _ = leads.Get(ctx, "1") }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if n := local(leads) - before; n != runs+1 {
			t.Errorf("%s: %d of %d hits in the process", name, n, runs+1)
		}
	}
}

// Whoever changes an entry, all processes drop what they keep of it: at once in the one that does, soon in the others.
func TestChangeReachesAllProcesses(t *testing.T) {
	for name, change := range map[string]func(ctx context.Context, s *Store) error{
		"delete": func(ctx context.Context, s *Store) error {
			return Of[lead](s, "lead", InProcess(Local{})).Delete(ctx, "1")
		},
		"set": func(ctx context.Context, s *Store) error {
			return Of[lead](s, "lead", InProcess(Local{})).Set(ctx, "1", lead{Score: 2})
		},
		"pattern": func(ctx context.Context, s *Store) error { _, err := s.Invalidate(ctx, "lead:?"); return err },
		"all":     func(ctx context.Context, s *Store) error { _, err := s.Invalidate(ctx, "*"); return err },
		"foreign": func(ctx context.Context, s *Store) error { return s.rdb.Del(ctx, s.opts.Prefix+"lead:1").Err() },
		"flush": func(ctx context.Context, s *Store) error {
			if c, ok := s.rdb.(*redis.ClusterClient); ok {
				return c.ForEachMaster(ctx, func(ctx context.Context, n *redis.Client) error { return n.FlushAll(ctx).Err() })
			}
			return s.rdb.FlushAll(ctx).Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, rdb redis.UniversalClient) {
				ctx := testContext(t)
				here := running(t, newStore(t, rdb, nil))
				there := running(t, sibling(t, here))
				a, b := Of[lead](here, "lead", InProcess(Local{})), Of[lead](there, "lead", InProcess(Local{}))
				settled(t, ctx, a, "1", loads(lead{Score: 1}))
				settled(t, ctx, b, "1", loads(lead{Score: 1}))
				if err := change(ctx, here); err != nil {
					t.Fatal(err)
				}
				if name != "foreign" && name != "flush" {
					if l, err := a.Get(ctx, "1"); name == "set" && l.Score != 2 || name != "set" && !errors.Is(err, ErrMiss) {
						t.Errorf("the process that changed it got %+v, %v", l, err)
					}
				}
				eventually(t, "the other process hears of it", func() bool {
					l, err := b.Get(ctx, "1")
					return name == "set" && l.Score == 2 || name != "set" && errors.Is(err, ErrMiss)
				})
			})
		})
	}
}

// A value that is read from Redis while it is changed is not kept, whatever comes first.
func TestReadDuringChangeIsNotKept(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](running(t, newStore(t, client(t, one.Get(t)), nil)), "lead", InProcess(Local{}))
	for name, change := range map[string]func(){
		"key":     func() { leads.keyChanged("1") },
		"delete":  func() { _ = leads.Delete(ctx, "1") },
		"pattern": func() { leads.dropMatching("lead:1*") },
		"all":     func() { leads.dropMatching("*") },
	} {
		ticket := leads.near.ticket(leads.store, leads.prefix+"1", "1", leads.store.now())
		change()
		leads.keep("1", ticket, lead{Score: 1}, entry{header: header{kind: kindValue}, left: time.Minute, sure: time.Minute})
		if inProcess(leads, "1") != nil {
			t.Errorf("%s: kept", name)
		}
	}
	ticket := leads.near.ticket(leads.store, leads.prefix+"1", "1", leads.store.now())
	other := "2"
	for leads.near.ticket(leads.store, leads.prefix+other, other, leads.store.now()).shard == ticket.shard {
		other += "2" // which shares its fence with few
	}
	leads.keyChanged(other)
	leads.keep("1", ticket, lead{Score: 1}, entry{header: header{kind: kindValue}, left: time.Minute, sure: time.Minute})
	if inProcess(leads, "1") == nil {
		t.Error("nothing is kept at all")
	}
}

func TestOlderResidentIsAMissForTheCallerThatWrote(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](running(t, newStore(t, rdb, nil)), "lead", InProcess(Local{}))
		settled(t, ctx, leads, "1", loads(lead{Score: 1}, at(5)))
		if _, err := leads.Get(wrote(ctx, at(6)), "1"); !errors.Is(err, ErrMiss) {
			t.Fatalf("the caller that wrote at 6 got the entry as of 5: %v", err)
		}
		before := local(leads)
		l, err := leads.Get(wrote(ctx, at(5)), "1")
		wantScore(t, l, err, 1)
		if local(leads) == before {
			t.Error("a caller whose writes the entry has did not get it from the process")
		}
	})
}

// A master that is silent, or whose connection is cut, may have changed what is kept.
func TestSilenceEndsWhatIsKept(t *testing.T) {
	ctx := testContext(t)
	_, leads, victim := breakable(t, ctx, func(o *Options) { o.Silence = 400 * time.Millisecond })
	s := running(t, leads.store)
	leads = Of[lead](s, "near", InProcess(Local{}))
	cluster := six.Get(t)
	var silent, heard string
	for i := 0; silent == "" || heard == ""; i++ {
		id := fmt.Sprint(i)
		master, err := cluster.MasterFor(ctx, leads.prefix+id)
		if err != nil {
			t.Fatal(err)
		}
		if master == victim {
			silent = id
		} else {
			heard = id
		}
	}
	settled(t, ctx, leads, silent, loads(lead{Score: 1}))
	settled(t, ctx, leads, heard, loads(lead{Score: 1}))
	victim.Freeze()
	eventually(t, "nothing of the silent master is used", func() bool {
		return inProcess(leads, silent) == nil
	})
	eventually(t, "what is kept of another is used", func() bool { return inProcess(leads, heard) != nil })
	victim.Thaw()
	eventually(t, "the master is heard of again", func() bool { return s.coverage.covered(s.now()) == clusterSlots })
	settled(t, ctx, leads, silent, loads(lead{Score: 1}))
	if err := cluster.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	victim, err := cluster.MasterFor(ctx, leads.prefix+silent) // another, if the machine was away for long
	if err != nil {
		t.Fatal(err)
	}
	before := s.coverage.slots[s.coverage.slot(leads.prefix+silent)].Load()
	node := redis.NewClient(&redis.Options{Addr: victim.Addr()})
	defer node.Close()
	if n, err := node.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Result(); err != nil || n == 0 {
		t.Fatalf("%d killed, %v", n, err)
	}
	eventually(t, "the cut is noticed", func() bool {
		return s.coverage.slots[s.coverage.slot(leads.prefix+silent)].Load() != before
	})
	if r, ok := leads.near.cache.GetIfPresent(silent); ok && s.coverage.holds(r.cover, r.slot, s.now()) {
		t.Error("what was kept before the cut is used after it")
	}
	settled(t, ctx, leads, silent, loads(lead{Score: 1}))
}

func TestNothingIsKeptWithoutRun(t *testing.T) {
	ctx := testContext(t)
	leads := Of[lead](newStore(t, client(t, one.Get(t)), nil), "lead", InProcess(Local{}))
	for range 3 {
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
	}
	if n := local(leads); n != 0 {
		t.Errorf("%d hits in a process that hears nothing", n)
	}
}

func TestResidentEndsWithItsEntry(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, nil))
		leads := Of[lead](s, "lead", TTL(400*time.Millisecond), Jitter(0), InProcess(Local{}))
		settled(t, ctx, leads, "1", loads(lead{Score: 1}))
		eventually(t, "the entry ends", func() bool {
			l, err := leads.Get(ctx, "1")
			if err == nil && l.Score != 1 {
				t.Fatal(l)
			}
			return errors.Is(err, ErrMiss)
		})
		if n, err := rdb.Exists(ctx, leads.prefix+"1").Result(); err != nil || n != 0 {
			t.Errorf("Redis still has it: %d, %v", n, err)
		}
	})
}

func TestLocalBounds(t *testing.T) {
	ctx := testContext(t)
	s, err := NewLocal(nil)
	if err != nil {
		t.Fatal(err)
	}
	few := Of[lead](s, "few", InProcess(Local{Entries: 100}))
	small := Of[string](s, "small", InProcess(Local{Bytes: 100_000}))
	for i := range 2000 {
		id := fmt.Sprint(i)
		if err := few.Set(ctx, id, lead{}); err != nil {
			t.Fatal(err)
		}
		if err := small.Set(ctx, id, fmt.Sprintf("%01000d", i)); err != nil {
			t.Fatal(err)
		}
	}
	few.near.cache.CleanUp()
	small.near.cache.CleanUp()
	if n, _ := few.residents(); n > 100 || n < 90 {
		t.Errorf("%d entries, the bound is 100", n)
	}
	if n, bytes := small.residents(); bytes > 100_000 || n < 50 || n > 100 {
		t.Errorf("%d entries of a kilobyte, %d bytes, the bound is 100,000", n, bytes)
	}
}

// A store without Redis does all that one process can.
func TestLocalStore(t *testing.T) {
	ctx := testContext(t)
	s, err := NewLocal(&Options{})
	if err != nil {
		t.Fatal(err)
	}
	leads := Of[lead](s, "lead", InProcess(Local{}), NegativeTTL(time.Minute), Tags(func(_ string, l lead) []string { return []string{fmt.Sprint("score ", l.Score)} }))
	l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
	wantScore(t, l, err, 1)
	l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 1)
	if err := leads.Delete(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	if err := s.InvalidateTags(ctx, "score 2"); err != nil {
		t.Fatal(err)
	}
	l, err = leads.Load(ctx, "1", loads(lead{Score: 3}))
	wantScore(t, l, err, 3)
	if report, err := s.Invalidate(ctx, "lead:*"); err != nil || !report.Complete {
		t.Fatalf("%+v, %v", report, err)
	}
	g := newGate()
	slow := background(ctx, leads, "1", g.load)
	<-g.entered
	if err := leads.Delete(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	g.release <- lead{Score: 4}
	<-slow
	if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("a load from before the delete was kept: %v", err)
	}
	if err := s.Ready(ctx); err != nil {
		t.Error(err)
	}
}

func TestLevelsAreSwitched(t *testing.T) {
	ctx := testContext(t)
	s := running(t, newStore(t, client(t, one.Get(t)), nil))
	leads := Of[lead](s, "lead", InProcess(Local{}))
	settled(t, ctx, leads, "1", loads(lead{Score: 1}))
	s.Use(Levels{Redis: true})
	before := local(leads)
	l, err := leads.Get(ctx, "1")
	wantScore(t, l, err, 1)
	if local(leads) != before {
		t.Error("the level in the process is off and was used")
	}
	s.Use(Levels{})
	l, err = leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	s.Use(Levels{InProcess: true, Redis: true})
	l, err = leads.Load(ctx, "1", loads(lead{Score: 3}))
	wantScore(t, l, err, 1)
}

// While a level is off, calls over many keys do without it, too.
func TestLevelsAreSwitchedForMany(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, func(o *Options) { o.Silence = patience }))
		leads := Of[lead](s, "lead", InProcess(Local{}))
		ids := spread(5)
		for _, id := range ids {
			settled(t, ctx, leads, id, loads(lead{Score: 1}))
		}
		asked := 0
		load := func(_ context.Context, ids []string) (map[string]lead, error) {
			asked += len(ids)
			found := map[string]lead{}
			for _, id := range ids {
				found[id] = lead{Score: 2}
			}
			return found, nil
		}
		for _, c := range []struct {
			name          string
			on            Levels
			local, loaded int
		}{
			{"both on", Levels{InProcess: true, Redis: true}, 10, 0},
			{"in the process off", Levels{Redis: true}, 0, 0},
			{"Redis off", Levels{InProcess: true}, 10, 0},
			{"both off", Levels{}, 0, 5},
			{"both off, as nothing is stored", Levels{}, 0, 5},
			{"both on again", Levels{InProcess: true, Redis: true}, 10, 0},
		} {
			s.Use(c.on)
			before := local(leads)
			asked = 0
			got, err := leads.GetMany(ctx, ids)
			if err != nil || len(got) != 5-c.loaded {
				t.Errorf("%s: GetMany: %v, %v", c.name, got, err)
			}
			all, err := leads.LoadMany(ctx, ids, load)
			if err != nil || len(all) != 5 || asked != c.loaded {
				t.Errorf("%s: LoadMany: %v, %v, %d loaded, want %d", c.name, all, err, asked, c.loaded)
			}
			for id, l := range all {
				if want := int64(1 + c.loaded/5); l.Score != want {
					t.Errorf("%s: %s is %+v, want score %d", c.name, id, l, want)
				}
			}
			if n := local(leads) - before; n != int64(c.local) {
				t.Errorf("%s: %d hits in the process, want %d", c.name, n, c.local)
			}
		}
	})
}

// While Redis is off, nothing is looked up or stored there, and what is kept in the process is served; what changes an entry goes
// there all the same.
func TestRedisIsSwitchedOff(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, func(o *Options) { o.Silence = patience }))
		leads := Of[lead](s, "lead", InProcess(Local{}))
		there := Of[lead](running(t, sibling(t, s)), "lead")
		for _, id := range []string{"kept", "deleted", "set", "swept"} {
			settled(t, ctx, leads, id, loads(lead{Score: 1}))
		}
		if err := there.Set(ctx, "elsewhere", lead{Score: 5}); err != nil {
			t.Fatal(err)
		}
		missing := func(v *View[lead], id string) {
			t.Helper()
			if l, err := v.Get(ctx, id); !errors.Is(err, ErrMiss) {
				t.Errorf("%s: got %+v, %v", id, l, err)
			}
		}
		s.Use(Levels{InProcess: true})
		before := local(leads)
		l, err := leads.Load(ctx, "kept", loads(lead{Score: 2}))
		wantScore(t, l, err, 1)
		if n := local(leads) - before; n != 1 {
			t.Errorf("%d hits in the process", n)
		}
		missing(leads, "elsewhere")
		for range 2 {
			for score, id := range []string{"elsewhere", "nowhere"} {
				l, err := leads.Load(ctx, id, loads(lead{Score: int64(score)}))
				wantScore(t, l, err, int64(score))
				found, err := leads.LoadMany(ctx, []string{id}, ofEach(loads(lead{Score: int64(score)})))
				wantScore(t, found[id], err, int64(score))
			}
		}
		if n, err := rdb.Exists(ctx, leads.prefix+"nowhere").Result(); err != nil || n != 0 {
			t.Errorf("%d entries are stored, %v", n, err)
		}
		l, err = there.Get(ctx, "elsewhere")
		wantScore(t, l, err, 5)

		if err := leads.Delete(ctx, "deleted"); err != nil {
			t.Error(err)
		}
		if err := leads.Set(ctx, "set", lead{Score: 6}); err != nil {
			t.Error(err)
		}
		if report, err := s.Invalidate(ctx, "lead:swept"); err != nil || report.Changed != 1 {
			t.Errorf("%+v, %v", report, err)
		}
		for _, id := range []string{"deleted", "set", "swept"} {
			missing(leads, id)
		}
		missing(there, "deleted")
		missing(there, "swept")
		l, err = there.Get(ctx, "set")
		wantScore(t, l, err, 6)
		s.Use(Levels{InProcess: true, Redis: true})
		for id, score := range map[string]int64{"kept": 1, "elsewhere": 5, "set": 6} {
			l, err := leads.Get(ctx, id)
			wantScore(t, l, err, score)
		}
	})
}
