package readonly_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) func() readonly.Store {
		store := readonly.NewMemory()
		return func() readonly.Store { return store }
	})
}

func TestNewReturnsEveryMistake(t *testing.T) {
	_, err := readonly.New(nil, &readonly.Options{Poll: -1, AckWait: -1, RetryAfter: -1, Exempt: []string{"POST /{", "POST /a", "POST /a"}})
	for _, option := range []string{"Poll", "AckWait", "RetryAfter", `"POST /{"`, `"POST /a"`} {
		if err == nil || !strings.Contains(err.Error(), option) {
			t.Errorf("error does not name %s: %v", option, err)
		}
	}
}

// running returns a Switch whose Run runs, inside a synctest bubble.
func running(t *testing.T, store readonly.Store, options *readonly.Options) *readonly.Switch {
	t.Helper()
	s, err := readonly.New(store, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return s
}

// deaf is a store that can be read and takes no acknowledgement until it hears.
type deaf struct {
	readonly.Store
	hears atomic.Bool
}

func (d *deaf) Acknowledge(ctx context.Context, instance string, ack readonly.Ack, ttl time.Duration) error {
	if !d.hears.Load() {
		return errors.New("lost")
	}
	return d.Store.Acknowledge(ctx, instance, ack, ttl)
}

// Nobody waits for an instance of which nobody has heard, so held would not be true of it.
func TestNobodyWritesBeforeTheOthersKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &deaf{Store: readonly.NewMemory()}
		s := running(t, store, &readonly.Options{Instance: "new"})
		time.Sleep(time.Second)
		if err := s.AllowWrite(t.Context()); !errors.Is(err, readonly.ErrReadOnly) {
			t.Errorf("AllowWrite, unheard of: %v", err)
		}
		if _, err := s.Disable(t.Context(), "me"); err == nil {
			t.Error("an instance that nobody knows has changed the mode")
		}
		store.hears.Store(true)
		time.Sleep(time.Second)
		if err := s.AllowWrite(t.Context()); err != nil {
			t.Errorf("AllowWrite, known: %v", err)
		}
	})
}

func TestBeforeRunWritesAreRefused(t *testing.T) {
	s, err := readonly.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AllowWrite(t.Context()); !errors.Is(err, readonly.ErrReadOnly) {
		t.Fatalf("AllowWrite = %v", err)
	}
	bold, err := readonly.New(nil, &readonly.Options{AssumeWritable: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := bold.AllowWrite(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestUntilEndsTheMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, nil)
		report, err := s.Enable(t.Context(), readonly.Change{Until: time.Now().Add(time.Hour)})
		if err != nil || !report.Enabled {
			t.Fatalf("Enable = %+v, %v", report, err)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		if s.AllowWrite(t.Context()) == nil {
			t.Fatal("a write was allowed before the end")
		}
		time.Sleep(time.Nanosecond)
		if err := s.AllowWrite(t.Context()); err != nil {
			t.Fatalf("a write was refused after the end: %v", err)
		}
		if report, err := s.Report(t.Context()); err != nil || report.Enabled || report.Phase != "off" {
			t.Fatalf("Report = %+v, %v", report, err)
		}
		if _, err := s.Enable(t.Context(), readonly.Change{Until: time.Now()}); err == nil {
			t.Fatal("an end that has passed was accepted")
		}
	})
}

func TestEnablingTwiceIsEnablingOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, nil)
		first, err1 := s.Enable(t.Context(), readonly.Change{Reason: "x"})
		second, err2 := s.Enable(t.Context(), readonly.Change{Reason: "x"})
		if err := errors.Join(err1, err2); err != nil || first.Epoch != second.Epoch || !second.Enabled {
			t.Fatalf("epochs %d and %d, %v", first.Epoch, second.Epoch, err)
		}
	})
}

func TestRequestsInFlightAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, nil)
		inside, leave := make(chan struct{}), make(chan struct{})
		handler := s.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(inside)
			<-leave
		}))
		var request sync.WaitGroup
		request.Go(func() {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil))
		})
		<-inside
		report, err := s.Enable(t.Context(), readonly.Change{})
		if err != nil || report.Phase != "acknowledged" || report.InFlight != 1 {
			t.Fatalf("with a write in flight, Enable = %+v, %v", report, err)
		}
		close(leave)
		request.Wait()
		report, err = s.Enable(t.Context(), readonly.Change{})
		if err != nil || report.Phase != "drained" || report.InFlight != 0 {
			t.Fatalf("when it has ended, Enable = %+v, %v", report, err)
		}
	})
}

func TestMiddleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, &readonly.Options{Exempt: []string{"POST /login", "/hooks/{id}"}})
		handler := s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		status := func(method, target string) int {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(method, target, nil))
			return w.Code
		}
		if got := status(http.MethodPost, "/leads"); got != http.StatusNoContent {
			t.Fatalf("POST is %d although the mode is off", got)
		}
		if _, err := s.Enable(t.Context(), readonly.Change{Reason: "moving house"}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			method, target string
			want           int
		}{
			{"GET", "/leads", 204}, {"HEAD", "/leads", 204}, {"OPTIONS", "/leads", 204}, {"TRACE", "/leads", 204}, {"QUERY", "/leads", 204},
			{"POST", "/leads", 503}, {"PUT", "/leads", 503}, {"PATCH", "/leads", 503}, {"DELETE", "/leads", 503}, {"PURGE", "/leads", 503}, {"get", "/leads", 503},
			{"POST", "/login", 204}, {"PUT", "/login", 503}, {"DELETE", "/hooks/7", 204},
			{"POST", "/login/../leads", 503}, {"POST", "/login/", 503}, {"POST", "//login", 503}, {"POST", "/hooks/%2e%2e/leads", 503}, {"POST", "/hooks/7/../../leads", 503},
		} {
			if got := status(c.method, c.target); got != c.want {
				t.Errorf("%s %s is %d, want %d", c.method, c.target, got, c.want)
			}
		}
	})
}

func TestRefusalTellsWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, nil, &readonly.Options{RetryAfter: 3 * time.Second})
		if _, err := s.Enable(t.Context(), readonly.Change{Reason: "moving house", Until: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.Middleware(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
		var problem struct {
			Status int
			Detail string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || problem.Status != 503 || !strings.Contains(problem.Detail, "moving house") {
			t.Errorf("body = %s, %v", w.Body, err)
		}
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("Content-Type = %q", got)
		}
		var seconds int
		if _, err := fmt.Sscan(w.Header().Get("Retry-After"), &seconds); err != nil || seconds < 60 || seconds > 63 {
			t.Errorf("Retry-After = %q, want 60 to 63 s", w.Header().Get("Retry-After"))
		}
	})
}

// hung is a store that answers when its caller gives up.
type hung struct{ readonly.Store }

func (h hung) Load(ctx context.Context) (readonly.State, error) {
	<-ctx.Done()
	return readonly.State{}, ctx.Err()
}

// Whoever waits for another change waits no longer than he has time.
func TestChangesWaitNoLongerThanTheirCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := readonly.New(hung{readonly.NewMemory()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		patient, give := context.WithTimeout(t.Context(), time.Minute)
		defer give()
		go s.Enable(patient, readonly.Change{})
		synctest.Wait()
		began := time.Now()
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Disable(hasty, "test"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Disable = %v after %v", err, time.Since(began))
		}
	})
}

// asked is a context that fails the test when it is asked again and again.
type asked struct {
	context.Context
	t *testing.T
	n int
}

func (a *asked) Value(key any) any {
	if a.n++; a.n > 100 {
		a.t.Fatal("it goes round in circles")
	}
	return a.Context.Value(key)
}

// A Store's own write begins also while this instance is cut off.
func TestOwnWriteBeginsWhileIsolated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := readonly.New(nil, &readonly.Options{AssumeWritable: true, Isolated: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if s.AllowWrite(t.Context()) == nil {
			t.Fatal("not isolated")
		}
		done, err := s.Begin(&asked{Context: readonly.OwnWrite(t.Context()), t: t})
		if err != nil {
			t.Fatal(err)
		}
		done()
	})
}
