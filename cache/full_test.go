package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// full makes a server have no room for more until the test's end.
func full(t *testing.T, ctx context.Context) (lift func()) {
	t.Helper()
	node := one.Get(t).Nodes()[0]
	lift = func() {
		if err := node.SetMaxMemory(context.WithoutCancel(ctx), 0, "noeviction"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(lift)
	if err := node.SetMaxMemory(ctx, 1, "noeviction"); err != nil {
		t.Fatal(err)
	}
	if err := node.Client().Set(ctx, newPrefix()+"more", "1", 0).Err(); !redis.HasErrorPrefix(err, "OOM") {
		t.Fatalf("a full server answers SET with %v", err)
	}
	return lift
}

// On a server that is full, too, what stands there is removed, and what that asks of later loads stays.
func TestRemovingWorksOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := tagged(t, ctx, s)
	if err := v.Delete(wrote(ctx, at(1)), "3"); err != nil { // sweeps look for what it asks for
		t.Fatal(err)
	}
	removals := map[string]func() error{
		"delete":          func() error { return v.Delete(ctx, "1") },
		"delete, wrote":   func() error { return v.Delete(wrote(ctx, at(9)), "1") },
		"delete, a lease": func() error { return errors.Join(v.Delete(ctx, "1"), v.Delete(wrote(ctx, at(9)), "1")) },
		"pattern": func() error {
			_, err := s.Invalidate(ctx, "lead:*")
			return err
		},
		"pattern, a lease": func() error {
			_, err := s.Invalidate(ctx, "lead:*")
			return errors.Join(v.Delete(ctx, "1"), err)
		},
		"pattern, wrote": func() error {
			_, err := s.Invalidate(wrote(ctx, at(9)), "lead:*")
			return err
		},
		"tag":        func() error { return s.InvalidateTags(ctx, "all") },
		"tag, wrote": func() error { return s.InvalidateTags(wrote(ctx, at(9)), "all") },
	}
	for name, remove := range removals {
		t.Run(name, func(t *testing.T) {
			if err := s.rdb.Del(ctx, v.prefix+"1").Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := v.LoadMany(ctx, []string{"1", "2"}, ofEach(loads(lead{Score: 9}, at(9)))); err != nil {
				t.Fatal(err)
			}
			lift := full(t, ctx)
			if err := remove(); err != nil {
				t.Error(err)
			}
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("it is served on: %+v, %v", l, err)
			}
			lift()
			wantShutOut(t, ctx, v, 8)
		})
	}
}

// So does removing what is not there, which asks the same of later loads. Else each such delete would be owed, and so many
// of them would end in the removal of everything.
func TestRemovingNothingWorksOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := tagged(t, ctx, s)
	for name, remove := range map[string]func(ctx context.Context) error{
		"delete":  func(ctx context.Context) error { return v.Delete(ctx, "1") },
		"pattern": func(ctx context.Context) error { _, err := s.Invalidate(ctx, "lead:*"); return err },
		"tag":     func(ctx context.Context) error { return s.InvalidateTags(ctx, "all") },
	} {
		t.Run(name, func(t *testing.T) {
			lose(t, ctx, s, v.prefix+"1", s.clockKey(), s.rulesKey(), s.memoryKey(), s.tagFloorKey(hashTag("all")))
			lift := full(t, ctx)
			for _, by := range []context.Context{ctx, wrote(ctx, at(9))} {
				if err := remove(by); err != nil {
					t.Error(err)
				}
			}
			if n := len(s.debts.keys) + len(s.debts.tags) + len(s.debts.patterns); n != 0 {
				t.Errorf("%d are owed", n)
			}
			lift()
			wantShutOut(t, ctx, v, 8)
		})
	}
}

// TTL extensions are taken back on a server that is full, too.
func TestRestoreOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
	ids := fillStore(t, ctx, v, 600)
	if _, err := s.ExtendTTLs(ctx, Extension{}); err != nil {
		t.Fatal(err)
	}
	full(t, ctx)
	if report, err := s.RestoreTTLs(ctx); err != nil || report.Changed != 600 {
		t.Errorf("%+v, %v", report, err)
	}
	wantTTLs(t, ctx, v, ids, time.Hour)
}

// So are sweeps finished that whoever began them has left behind.
func TestOrphanedSweepIsFinishedOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
	ids := fillStore(t, ctx, v, 10)
	long := uint64(time.Now().Add(-time.Hour).UnixMicro())
	if err := ruleScript.Run(ctx, s.rdb, []string{s.rulesKey()}, long, "lead:*").Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.followRules(ctx); err != nil {
		t.Fatal(err)
	}
	full(t, ctx)
	if err := s.reclaimMemory(ctx); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if n, err := s.rdb.Exists(ctx, v.prefix+id).Result(); n != 0 || err != nil {
			t.Errorf("%s is there: %v", id, err)
		}
	}
	if list := standing(t, ctx, s); len(list) != 0 {
		t.Errorf("rules stand: %v", list)
	}
}

// Nobody warms what a server that is full would not take.
func TestNobodyWarmsAFullServer(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	name := s.opts.Prefix + metaMark + "warm:"
	lift := full(t, ctx)
	for _, refuses := range []bool{true, false} {
		lease := redisclient.NewLease(s.rdb, name+"lease", warmLease)
		if mine, done, err := s.warmTurn(ctx, lease, name+"done"); mine == refuses || done || redis.HasErrorPrefix(err, "OOM") != refuses {
			t.Errorf("full %v: mine %v, done %v, %v", refuses, mine, done, err)
		}
		lift()
	}
}
