package admin_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

type healthAnswer struct {
	Status                      string
	Failing, Degraded, Excluded []string
	Checks                      map[string]struct{ Status, Error string }
}

func fine(context.Context) error { return nil }

func down(context.Context) error { return errors.New("connection refused by 10.0.0.7") }

func TestReadiness(t *testing.T) {
	h := mount(t, &admin.Options{Tokens: tokens(), Checks: []admin.Check{
		{Name: "database", Ready: down}, {Name: "cache", Ready: down, Optional: true}, {Name: "queue", Ready: fine}, {Name: "odd", Ready: func(context.Context) error { panic("odd") }},
	}})
	for target, want := range map[string]struct {
		code   int
		answer string
	}{
		"/livez":                                   {200, `{"status":"ok"}`},
		"/readyz":                                  {503, `{"status":"unavailable","failing":["database","odd"],"degraded":["cache"]}`},
		"/readyz?verbose":                          {503, `{"status":"unavailable","failing":["database","odd"],"degraded":["cache"]}`},
		"/readyz?exclude=database":                 {503, `{"status":"unavailable","failing":["odd"],"degraded":["cache"],"excluded":["database"]}`},
		"/readyz?exclude=database,odd":             {200, `{"status":"degraded","degraded":["cache"],"excluded":["database","odd"]}`},
		"/readyz?exclude=database&exclude=odd":     {200, `{"status":"degraded","degraded":["cache"],"excluded":["database","odd"]}`},
		"/readyz?exclude=cache,odd,database,other": {200, `{"status":"ok","excluded":["database","cache","odd"]}`},
		"/health":                                  {503, `{"status":"unavailable"}`},
	} {
		w := serve(h, request("GET", target, "", func(r *http.Request) { r.RemoteAddr, r.Host = "10.0.0.9:1", "api-1" }))
		if w.Code != want.code || strings.TrimSpace(w.Body.String()) != want.answer {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	for _, target := range []string{"/readyz?verbose", "/readyz?verbose=true", "/health"} {
		a := decode[healthAnswer](t, serve(h, request("GET", target, "", bearing(viewerSecret))))
		if len(a.Checks) != 4 || !strings.Contains(a.Checks["database"].Error, "refused") || a.Checks["queue"].Status != "ok" || !strings.Contains(a.Checks["odd"].Error, "panicked") {
			t.Errorf("%s: %+v", target, a)
		}
	}
	if a := decode[healthAnswer](t, serve(h, request("GET", "/readyz?verbose=false", "", bearing(viewerSecret)))); a.Checks != nil {
		t.Errorf("%+v", a)
	}
	if w := serve(mount(t, nil), request("GET", "/readyz", "")); w.Code != 200 {
		t.Errorf("without checks: %d", w.Code)
	}
}

// A check that hangs, even one that ignores its context, holds a probe no longer than the timeout, runs once, and
// leaves /livez and the other checks alone.
func TestReadinessWithAHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var hung, quick atomic.Int32
		h := mount(t, &admin.Options{Checks: []admin.Check{
			{Name: "hung", Ready: func(context.Context) error { hung.Add(1); <-release; return nil }},
			{Name: "slow", Ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{Name: "quick", Ready: func(context.Context) error { quick.Add(1); return nil }},
		}})
		began := time.Now()
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				w := serve(h, request("GET", "/readyz?verbose", ""))
				a := decode[healthAnswer](t, w)
				if w.Code != 503 || strings.Join(a.Failing, ",") != "hung,slow" || !strings.Contains(a.Checks["hung"].Error, "no answer within 1s") || a.Checks["quick"].Status != "ok" {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		}
		synctest.Wait() // all of them wait for the checks now
		if w := serve(h, request("GET", "/livez", "")); w.Code != 200 || time.Since(began) != 0 {
			t.Errorf("/livez: %d after %v", w.Code, time.Since(began))
		}
		group.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("the probes took %v", took)
		}
		if hung.Load() != 1 || quick.Load() != 1 {
			t.Errorf("20 probes: hung ran %d times, quick %d", hung.Load(), quick.Load())
		}
		time.Sleep(time.Minute)
		serve(h, request("GET", "/readyz", ""))
		if hung.Load() != 1 || quick.Load() != 2 {
			t.Errorf("a minute later: hung ran %d times, quick %d", hung.Load(), quick.Load())
		}
		close(release)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if a := decode[healthAnswer](t, serve(h, request("GET", "/readyz", ""))); strings.Join(a.Failing, ",") != "slow" {
			t.Errorf("it did not heal: %+v", a)
		}
	})
}

// A probe whose caller leaves ends with the caller.
func TestReadinessCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := mount(t, &admin.Options{Checks: []admin.Check{{Name: "slow", Ready: func(ctx context.Context) error { <-ctx.Done(); return nil }}}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		serve(h, request("GET", "/readyz", "").WithContext(ctx))
		if took := time.Since(began); took != 10*time.Millisecond {
			t.Errorf("%v", took)
		}
		time.Sleep(2 * time.Second)
	})
}
