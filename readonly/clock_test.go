package readonly_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// settable is a store whose clock is set, and which has no news for one instance.
type settable struct {
	readonly.Store
	mu     sync.Mutex
	behind map[string]time.Duration // how far the clock was set since an instance gave its word
}

func (s *settable) set(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	acks, _ := s.Store.Acknowledged(context.Background())
	for instance := range acks {
		s.behind[instance] += ahead
	}
}

func (s *settable) Acknowledge(ctx context.Context, instance string, ack readonly.Ack, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.behind, instance)
	return s.Store.Acknowledge(ctx, instance, ack, ttl)
}

func (s *settable) Acknowledged(ctx context.Context) (map[string]readonly.Ack, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	acks, err := s.Store.Acknowledged(ctx)
	for instance, ack := range acks {
		if ack.Age += s.behind[instance]; ack.Age > 24*time.Hour {
			delete(acks, instance)
			continue
		}
		acks[instance] = ack
	}
	return acks, err
}

// newsless never hears of a change before it polls.
type newsless struct{ *settable }

func (n newsless) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// A store whose clock is set by an hour in the moment of a change hides nobody who still writes: held is not said before all refuse.
func TestHeldOutlivesClocks(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &settable{Store: readonly.NewMemory(), behind: map[string]time.Duration{}}
				if err := store.Acknowledge(t.Context(), "dead", readonly.Ack{}, 24*time.Hour); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				a := running(t, store, &readonly.Options{Instance: "a", Witness: quiet{}})
				b := running(t, newsless{store}, &readonly.Options{Instance: "b"})
				time.Sleep(time.Second)
				if err := b.AllowWrite(t.Context()); err != nil {
					t.Fatal(err)
				}
				store.set(ahead)
				held := make(chan readonly.Report)
				go func() {
					report, err := a.Enable(context.Background(), readonly.Change{})
					if err != nil {
						t.Error(err)
					}
					held <- report
				}()
				for {
					synctest.Wait()
					select {
					case report := <-held:
						if !report.Held || report.Instances != 2 {
							t.Errorf("the change ended as %q with %d instances, want held by two", report.Phase, report.Instances)
						}
						return
					default:
					}
					report, err := a.Report(t.Context())
					if allowed := b.AllowWrite(t.Context()) == nil; err != nil || allowed && report.Held {
						t.Fatalf("held (%v, %v) while an instance writes: %+v", report.Held, err, report)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		})
	}
}

// quiet is a database in which nobody writes.
type quiet struct{}

func (quiet) Mark(context.Context) (string, uint64, error) { return "one", 10, nil }

func (quiet) Look(context.Context) (readonly.Sight, error) {
	return readonly.Sight{Server: "one", Next: 10}, nil
}

// early is a store as an instance sees it whose clock is ahead.
type early struct {
	readonly.Store
	by time.Duration
}

func (e *early) Load(ctx context.Context) (readonly.State, error) {
	s, err := e.Store.Load(ctx)
	if !s.Until.IsZero() {
		s.Until = s.Until.Add(-e.by)
	}
	return s, err
}

// For whom the mode is over by its own clock writes, and so no longer says that it obeys.
func TestHeldEndsWithTheFirstClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		a := running(t, store, &readonly.Options{Instance: "a", Witness: quiet{}})
		b := running(t, &early{store, 2 * time.Second}, &readonly.Options{Instance: "b"})
		if report, err := a.Enable(t.Context(), readonly.Change{Until: time.Now().Add(time.Minute)}); err != nil || !report.Held {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		report, err := a.Report(t.Context())
		if err != nil || report.Held || !slices.Equal(report.Missing, []string{"b"}) || b.AllowWrite(t.Context()) != nil {
			t.Errorf("held %v, missing %v, %v", report.Held, report.Missing, err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if report, err := a.Report(t.Context()); err != nil || report.Phase != readonly.PhaseOff || len(report.Missing) > 0 {
			t.Errorf("when it is over for all: %q, missing %v, %v", report.Phase, report.Missing, err)
		}
	})
}
