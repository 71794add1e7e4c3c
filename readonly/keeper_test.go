package readonly_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/readonly"
)

// patient is a cause that a test turns on and off.
type patient struct{ ill atomic.Bool }

func (p *patient) check(context.Context) error {
	if p.ill.Load() {
		return errors.New("no primary")
	}
	return nil
}

// keep runs a Keeper until stop is called.
func keep(t *testing.T, mode *readonly.Switch, p *patient, o *readonly.KeeperOptions) (stop func()) {
	t.Helper()
	k, err := readonly.NewKeeper(mode, []readonly.Trip{{Name: "database", Check: p.check}}, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stop = func() { cancel(); <-done; done <- nil }
	t.Cleanup(stop)
	return stop
}

func writes(t *testing.T, s *readonly.Switch) bool { return s.AllowWrite(t.Context()) == nil }

func TestKeeperTripsAndLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		var records []admin.Record // of the other instance
		a := running(t, store, &readonly.Options{Instance: "a"})
		b := running(t, store, &readonly.Options{Instance: "b", Audit: func(r admin.Record) { records = append(records, r) }})
		var p patient
		keep(t, a, &p, nil)
		p.ill.Store(true)
		time.Sleep(1500 * time.Millisecond)
		p.ill.Store(false) // too short to trip
		time.Sleep(2 * time.Second)
		p.ill.Store(true)
		time.Sleep(2500 * time.Millisecond)
		if !writes(t, b) {
			t.Fatal("it tripped on a cause that had not lasted")
		}
		time.Sleep(3 * time.Second)
		err := b.AllowWrite(t.Context())
		if err == nil || !strings.Contains(err.Error(), "database: no primary") {
			t.Fatalf("after the cause has lasted: %v", err)
		}
		state, _ := b.State()
		if state.Source != readonly.Automatic || state.Actor != "a" || state.Lease.IsZero() {
			t.Errorf("state = %+v", state)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if now, _ := b.State(); writes(t, b) || now.ID != state.ID {
			t.Fatalf("the lease was not kept: %+v", now)
		}
		p.ill.Store(false)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if !writes(t, a) || !writes(t, b) {
			t.Fatal("the mode outlives its cause")
		}
		if len(records) != 2 || records[0].Operation != "readonly.trip" || records[0].Actor != "a" || !strings.Contains(records[0].Detail, "no primary") || records[1].Operation != "readonly.untrip" {
			t.Errorf("audited: %+v", records)
		}
	})
}

func TestDeadKeeperLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := running(t, nil, nil)
		var p patient
		stop := keep(t, mode, &p, nil)
		p.ill.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if writes(t, mode) {
			t.Fatal("it did not trip")
		}
		stop()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if !writes(t, mode) {
			t.Fatal("the mode outlives its keeper")
		}
	})
}

// Another instance's Keeper that sees the cause takes the lease over.
func TestLeaseIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		a, b := running(t, store, &readonly.Options{Instance: "a"}), running(t, store, &readonly.Options{Instance: "b"})
		var p patient
		p.ill.Store(true)
		stop := keep(t, a, &p, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		keep(t, b, &p, nil)
		stop()
		for range 60 {
			time.Sleep(time.Second)
			if writes(t, a) || writes(t, b) {
				t.Fatal("the lease ended although its cause lasts")
			}
		}
	})
}

func TestPeopleHaveTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mode := running(t, nil, nil)
		var p patient
		keep(t, mode, &p, nil)
		if _, err := mode.Enable(t.Context(), readonly.Change{Reason: "by hand"}); err != nil {
			t.Fatal(err)
		}
		p.ill.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		p.ill.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if state, _ := mode.State(); writes(t, mode) || state.Source != readonly.Operator || state.Reason != "by hand" {
			t.Fatalf("what a person has enabled was changed: %+v", state)
		}
		p.ill.Store(true)
		if _, err := mode.Disable(t.Context(), "me"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Second)
		if !writes(t, mode) {
			t.Fatal("it tripped in the respite after a person had allowed writes")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if writes(t, mode) {
			t.Fatal("it does not trip after the respite")
		}
		if _, err := mode.Enable(t.Context(), readonly.Change{Reason: "mine now"}); err != nil {
			t.Fatal(err)
		}
		p.ill.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if writes(t, mode) {
			t.Fatal("what a person took over ended by itself")
		}
	})
}

func TestKeeperNamesMistakes(t *testing.T) {
	_, err := readonly.NewKeeper(nil, []readonly.Trip{{}}, &readonly.KeeperOptions{Interval: -1, Lease: time.Second})
	for _, what := range []string{"Switch", "trip 0", "Interval", "Lease"} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s is not named: %v", what, err)
		}
	}
}

// A check that comes to the end of its time has seen nothing, unless it says what.
func TestKeeperTakesNoTimeoutForACause(t *testing.T) {
	for name, test := range map[string]struct {
		check func(context.Context) error
		trips bool
	}{
		"bare":    {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, false},
		"wrapped": {func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("no answer: %w", ctx.Err()) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mode := running(t, nil, nil)
				k, err := readonly.NewKeeper(mode, []readonly.Trip{{Name: "slow", Check: test.check}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				go k.Run(t.Context())
				time.Sleep(time.Minute)
				synctest.Wait()
				if tripped := !writes(t, mode); tripped != test.trips {
					t.Errorf("tripped: %v", tripped)
				}
			})
		})
	}
}

// After a lease has lapsed, those who have not heard of its renewal write: what they said before, and what was proven before, counts
// no longer.
func TestALapsedLeaseIsAnotherChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		var p patient
		p.ill.Store(true)
		m := &mortal{Store: store}
		near := running(t, m, &readonly.Options{Instance: "near", Witness: quiet{}})
		time.Sleep(100 * time.Millisecond) // so that they poll at other moments
		far := running(t, newsless{&settable{Store: store, behind: map[string]time.Duration{}}}, &readonly.Options{Instance: "far"})
		keep(t, near, &p, nil)
		time.Sleep(10 * time.Second)
		before, _ := far.State()
		if writes(t, far) || writes(t, near) {
			t.Fatal("not tripped")
		}
		m.dead.Store(true) // the one Keeper cannot reach the store for longer than the lease
		time.Sleep(20 * time.Second)
		if !writes(t, far) {
			t.Fatal("not lapsed")
		}
		m.dead.Store(false)
		held := false
		for range 3500 {
			time.Sleep(time.Millisecond)
			report, err := near.Report(t.Context())
			if err == nil && report.Held && writes(t, far) {
				t.Fatalf("held, %d of %d obey, and one writes", report.Acknowledged, report.Instances)
			}
			held = held || report.Held
		}
		if after, _ := far.State(); !held || after.ID == before.ID {
			t.Errorf("held %v, change %q after %q", held, after.ID, before.ID)
		}
	})
}
