package readonly_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// Requests whose method reads, and that write all the same, do not bypass the mode.
func TestDisguisedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, &readonly.Options{Status: http.StatusLocked, Exempt: []string{"GET /live"}})
		handler := s.Middleware(http.HandlerFunc(ok))
		status := func(method, target, header, value string) int {
			r := httptest.NewRequest(method, target, nil)
			if header != "" {
				r.Header.Set(header, value)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			return w.Code
		}
		if got := status("GET", "/", "Upgrade", "websocket"); got != 204 {
			t.Fatalf("an upgrade is %d although the mode is off", got)
		}
		if _, err := s.Enable(t.Context(), readonly.Change{}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			method, target, header, value string
			want                          int
		}{
			{"GET", "/", "", "", 204}, {"GET", "/", "Upgrade", "websocket", 423}, {"GET", "/live", "Upgrade", "websocket", 204},
			{"GET", "/live/../x", "Upgrade", "websocket", 423}, {"GET", "/x/../live", "Upgrade", "websocket", 423}, {"GET", "/", "Upgrade", "h2c", 204},
			{"GET", "/", "X-HTTP-Method-Override", "delete", 423}, {"HEAD", "/", "X-HTTP-Method", "PUT", 423}, {"QUERY", "/", "X-Method-Override", "purge", 423},
			{"GET", "/", "X-HTTP-Method-Override", "HEAD", 204}, {"POST", "/", "X-HTTP-Method-Override", "GET", 423},
		} {
			if got := status(c.method, c.target, c.header, c.value); got != c.want {
				t.Errorf("%s %s with %s: %s is %d, want %d", c.method, c.target, c.header, c.value, got, c.want)
			}
		}
	})
}

// Inside a mux the pattern that has matched counts: a path that only begins like an exempted one is none.
func TestExemptionByTheMatchedPattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, &readonly.Options{Exempt: []string{"POST /login"}})
		if _, err := s.Enable(t.Context(), readonly.Change{}); err != nil {
			t.Fatal(err)
		}
		mux := http.NewServeMux()
		guarded := s.Middleware(http.HandlerFunc(ok))
		for _, pattern := range []string{"POST /login", "POST /login/{rest...}", "POST /{any}"} {
			mux.Handle(pattern, guarded)
		}
		for target, want := range map[string]int{"/login": 204, "/login/leads": 503, "/loginx": 503} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodPost, target, nil))
			if w.Code != want {
				t.Errorf("%s is %d, want %d", target, w.Code, want)
			}
		}
	})
}

func TestLongLivedConnectionsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, nil)
		told := func(what string, change func()) {
			t.Helper()
			changed := s.Changed()
			select {
			case <-changed:
				t.Fatalf("told before %s", what)
			default:
			}
			change()
			select {
			case <-changed:
			case <-time.After(time.Second):
				t.Errorf("not told of %s", what)
			}
		}
		told("the beginning", func() { s.Enable(t.Context(), readonly.Change{Until: time.Now().Add(time.Minute)}) })
		told("the end by the clock", func() { time.Sleep(time.Minute) })
		if !writes(t, s) {
			t.Fatal("told, and writes are refused still")
		}
	})
}

// Writers run against a switch that is turned on: once it says drained, none is inside.
func TestNoWriterSlipsThrough(t *testing.T) {
	s, err := readonly.New(nil, &readonly.Options{Poll: 20 * time.Millisecond, AckWait: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- s.Run(ctx) }()
	for _, known := s.State(); !known; _, known = s.State() {
		time.Sleep(time.Millisecond)
	}
	var inside atomic.Int64
	var stop atomic.Bool
	var entered atomic.Int64
	handler := s.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		inside.Add(1)
		entered.Add(1)
		time.Sleep(10 * time.Microsecond)
		inside.Add(-1)
	}))
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for !stop.Load() {
				handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil))
			}
		})
	}
	defer group.Wait()
	defer stop.Store(true)
	for range 50 {
		for before := entered.Load(); entered.Load() == before; {
			time.Sleep(100 * time.Microsecond)
		}
		report, err := s.Enable(ctx, readonly.Change{})
		if err != nil || report.Phase != readonly.PhaseDrained {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		for range 100 {
			if n := inside.Load(); n != 0 {
				t.Fatalf("%d writers are inside after drained", n)
			}
		}
		if _, err := s.Disable(ctx, "me"); err != nil {
			t.Fatal(err)
		}
	}
}

// An instance that is cut off for long stops writing by itself, if it is told to.
func TestIsolatedInstanceStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for isolated, want := range map[time.Duration]bool{0: true, 30 * time.Second: false} {
			m := &mortal{Store: readonly.NewMemory()}
			s := running(t, m, &readonly.Options{Isolated: isolated})
			m.dead.Store(true)
			time.Sleep(29 * time.Second)
			if !writes(t, s) {
				t.Errorf("isolated for 29 s with %v: refused", isolated)
			}
			time.Sleep(2 * time.Second)
			if got := writes(t, s); got != want {
				t.Errorf("isolated for 31 s with %v: may write %v", isolated, got)
			}
			m.dead.Store(false)
			time.Sleep(time.Second)
			if !writes(t, s) {
				t.Error("it does not write again")
			}
		}
	})
}

// So it does when the mode that it knows ends, which may have been made longer since, or lets some write.
func TestIsolatedInstanceStopsUnderAMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tier := range []readonly.Tier{readonly.Full, readonly.Staff} {
			change, name := readonly.Change{Tier: tier}, string(tier)
			if tier == readonly.Full {
				change.Until = time.Now().Add(40*time.Second + 100*time.Millisecond) // between two polls
			}
			m := &mortal{Store: readonly.NewMemory()}
			s := running(t, m, &readonly.Options{Isolated: 30 * time.Second, Staff: func(context.Context) bool { return true }})
			if _, err := s.Enable(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			if allowed := writes(t, s); allowed != (change.Tier == readonly.Staff) {
				t.Errorf("%s: may write %v before", name, allowed)
			}
			m.dead.Store(true)
			if until := change.Until; until.IsZero() {
				time.Sleep(31 * time.Second)
			} else {
				time.Sleep(time.Until(until) + time.Millisecond)
			}
			if writes(t, s) {
				t.Errorf("%s: it writes while it is isolated", name)
			}
			m.dead.Store(false)
			time.Sleep(time.Second)
		}
	})
}

func BenchmarkMiddleware(b *testing.B) {
	s, err := readonly.New(nil, &readonly.Options{AssumeWritable: true})
	if err != nil {
		b.Fatal(err)
	}
	handler := s.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	bare := http.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		name, method string
		handler      http.Handler
	}{{"bare", "GET", bare}, {"safe", "GET", handler}, {"write", "POST", handler}} {
		r := httptest.NewRequest(c.method, "/", nil)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.handler.ServeHTTP(nil, r)
			}
		})
		b.Run(c.name+"/16 goroutines", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8) // of 2 processors
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.handler.ServeHTTP(nil, r)
				}
			})
		})
	}
}
