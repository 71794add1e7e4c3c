package readonly_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// leaving starts an instance, which ends with stop.
func leaving(t *testing.T, store readonly.Store) (s *readonly.Switch, stop func(), ended chan error) {
	t.Helper()
	s, err := readonly.New(store, &readonly.Options{Instance: "leaving", AssumeWritable: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	synctest.Wait()
	return s, cancel, ended
}

// Run outlives the writes that are under way, in step with the others; then it says goodbye, and nothing is written any more.
func TestGoodbyeComesAfterTheLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		stays := running(t, store, &readonly.Options{Instance: "stays", Witness: quiet{}})
		s, stop, ended := leaving(t, store)
		done, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stop()
		time.Sleep(time.Second)
		report, err := stays.Enable(t.Context(), readonly.Change{})
		if err != nil || report.Phase != readonly.PhaseAcknowledged || report.InFlight != 1 || writes(t, s) {
			t.Fatalf("with a write of one that leaves: %+v, %v; it begins others: %v", report, err, writes(t, s))
		}
		done()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if report, err = stays.Enable(t.Context(), readonly.Change{}); err != nil || !report.Held || report.Instances != 1 {
			t.Fatalf("after the goodbye: %+v, %v", report, err)
		}
		if _, err := stays.Disable(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		// Whatever asks afterwards: this instance hears of no change.
		if report, err := s.Enable(t.Context(), readonly.Change{Until: time.Now().Add(time.Second)}); err != nil || report.Instances != 1 {
			t.Errorf("a change by one that has left: %+v, %v", report, err)
		}
		time.Sleep(time.Minute)
		if err := s.AllowWrite(t.Context()); !errors.Is(err, readonly.ErrReadOnly) {
			t.Errorf("AllowWrite of one that has left: %v", err)
		}
		if report, err := stays.Report(t.Context()); err != nil || report.Instances != 1 {
			t.Errorf("later: %+v, %v", report, err)
		}
	})
}

// Whoever does not end its writes is missed.
func TestNoGoodbyeWhileSomethingWrites(t *testing.T) {
	for name, begin := range map[string]func(*testing.T, *readonly.Switch){
		"a request":    func(t *testing.T, s *readonly.Switch) { _, _ = s.Begin(t.Context()) },
		"a job":        func(_ *testing.T, s *readonly.Switch) { s.CountJobs(func() int { return 1 }) },
		"a connection": func(_ *testing.T, s *readonly.Switch) { s.CountConnections(func() int { return 1 }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := readonly.NewMemory()
				stays := running(t, store, &readonly.Options{Instance: "stays", Witness: quiet{}})
				s, stop, ended := leaving(t, store)
				begin(t, s)
				stop()
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
				report, err := stays.Enable(t.Context(), readonly.Change{})
				if err != nil || report.Held || writes(t, s) {
					t.Fatalf("Enable = %+v, %v; the one that left writes: %v", report, err, writes(t, s))
				}
				time.Sleep(5 * time.Second)
				if report, err = stays.Report(t.Context()); err != nil || !slices.Equal(report.Missing, []string{"leaving"}) {
					t.Errorf("Report = %+v, %v", report, err)
				}
			})
		})
	}
}

// Run may be called again.
func TestRunComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		stays := running(t, store, &readonly.Options{Instance: "stays"})
		s, stop, ended := leaving(t, store)
		stop()
		if err := <-ended; err != nil || writes(t, s) {
			t.Fatal(err, writes(t, s))
		}
		var on atomic.Bool
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { ended <- s.Run(ctx) }()
			synctest.Wait()
			if writes(t, s) == on.Load() {
				t.Errorf("read-only %v, and it writes: %v", on.Load(), writes(t, s))
			}
			on.Store(true)
			if report, err := stays.Enable(t.Context(), readonly.Change{Reason: "why"}); err != nil || report.Acknowledged != 2 {
				t.Errorf("%+v, %v", report, err)
			}
			if err := s.AllowWrite(t.Context()); err == nil || errors.As(err, new(*readonly.RefusedError)) == false {
				t.Error(err)
			}
			cancel()
			<-ended
		}
	})
}
