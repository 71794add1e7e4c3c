package readonly_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

type userKey struct{}

func as(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

func isStaff(ctx context.Context) bool { return ctx.Value(userKey{}) == "staff" }

func tenantOf(ctx context.Context) (string, bool) {
	user, ok := ctx.Value(userKey{}).(string)
	return user, ok
}

func TestStaffWritesUnderTierStaff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, &readonly.Options{Staff: isStaff})
		report, err := s.Enable(t.Context(), readonly.Change{Tier: readonly.Staff})
		if err != nil || report.Tier != readonly.Staff || report.Phase != readonly.PhaseDrained || report.Provable {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		handler := s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		for user, want := range map[string]int{"staff": 204, "guest": 503} {
			ctx := as(t.Context(), user)
			if err := s.AllowWrite(ctx); (err == nil) != (want == 204) {
				t.Errorf("%s: %v", user, err)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil))
			if w.Code != want {
				t.Errorf("%s: %d", user, w.Code)
			}
		}
		if _, err := s.Enable(t.Context(), readonly.Change{Tier: readonly.Full}); err != nil || s.AllowWrite(as(t.Context(), "staff")) == nil {
			t.Errorf("staff writes under tier full: %v", err)
		}
	})
}

// What staff was let to begin is awaited when the tier becomes full.
func TestStaffIsDrainedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, &readonly.Options{Staff: isStaff})
		if _, err := s.Enable(t.Context(), readonly.Change{Tier: readonly.Staff}); err != nil {
			t.Fatal(err)
		}
		done, err := s.Begin(as(t.Context(), "staff"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Begin(t.Context()); err == nil {
			t.Fatal("a guest's write began")
		}
		report, err := s.Enable(t.Context(), readonly.Change{})
		if err != nil || report.Phase != readonly.PhaseAcknowledged || report.InFlight != 1 {
			t.Fatalf("with a write of staff in flight, Enable = %+v, %v", report, err)
		}
		done()
		done() // once is enough
		if report, err = s.Enable(t.Context(), readonly.Change{}); err != nil || report.Phase != readonly.PhaseDrained {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
	})
}

func TestTenantsAreClosedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		s := running(t, store, &readonly.Options{Tenant: tenantOf})
		plain := running(t, store, &readonly.Options{Instance: "knows no tenants"})
		report, err := s.Enable(t.Context(), readonly.Change{Tenants: []string{"b", "a", "a"}})
		if err != nil || len(report.Tenants) != 2 || report.Provable {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		for user, want := range map[string]bool{"a": false, "b": false, "c": true} {
			if got := s.AllowWrite(as(t.Context(), user)) == nil; got != want {
				t.Errorf("tenant %s may write: %v", user, got)
			}
		}
		if s.AllowWrite(t.Context()) == nil {
			t.Error("a write of nobody known may be a closed tenant's, and was let through")
		}
		time.Sleep(time.Second)
		if plain.AllowWrite(as(t.Context(), "c")) == nil {
			t.Error("an instance that knows no tenants let a write through")
		}
	})
}

func TestChangesAreValidated(t *testing.T) {
	s, err := readonly.New(nil, &readonly.Options{AssumeWritable: true})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]readonly.Change{
		"tier": {Tier: "half"}, "Options.Staff": {Tier: readonly.Staff}, "Options.Tenant": {Tenants: []string{"a"}},
		"names": {Tenants: []string{""}}, "reason": {Reason: strings.Repeat("x", 1001)}, "until": {Until: time.Now().Add(-time.Second)},
	} {
		if _, err := s.Enable(t.Context(), c); err == nil || !strings.Contains(err.Error(), what) || s.AllowWrite(t.Context()) != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestJobsAndConnectionsAreDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		s := running(t, store, &readonly.Options{Instance: "asked"})
		worker, err := readonly.New(store, &readonly.Options{Instance: "worker"})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		jobs, connections := 2, 3
		count := func(n *int) func() int {
			return func() int { mu.Lock(); defer mu.Unlock(); return *n }
		}
		worker.CountJobs(count(&jobs))
		worker.CountConnections(count(&connections))
		go worker.Run(t.Context())
		time.Sleep(time.Second)
		report, err := s.Enable(t.Context(), readonly.Change{})
		if err != nil || report.Phase != readonly.PhaseAcknowledged || report.Jobs != 2 || report.Connections != 3 {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		mu.Lock()
		jobs, connections = 0, 0
		mu.Unlock()
		began := time.Now()
		for report.Phase != readonly.PhaseDrained {
			time.Sleep(time.Millisecond)
			if report, err = s.Report(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("it took %v until the end of the last job was known", took)
		}
	})
}
