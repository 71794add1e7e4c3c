package cache

import (
	"context"
	"errors"
	"testing"
	"time"
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
	if err := node.SetMaxMemory(ctx, 1<<20, "noeviction"); err != nil {
		t.Fatal(err)
	}
	return lift
}

// On a server that is full, too, what stands there is removed, and what that asks of later loads stays.
func TestRemovingWorksOnAFullServer(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
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
