package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

type work = func(ctx context.Context, progress admin.Progress) (any, error)

// starting mounts POST /start/{key}, whose work is looked up by key.
func starting(t *testing.T, jobs map[string]work) *admin.Handler {
	return mount(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6}, admin.Operation{
		Method: "POST", Path: "/start/{key}", ID: "job.start", Role: admin.Operator, Reply: admin.Started{},
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			return call.Background.Start("job.start", call.Path("key"), call.Actor, jobs[call.Path("key")])
		},
	})
}

// running calls Run and returns what ends it and waits for its end.
func running(t *testing.T, h *admin.Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	eventually(t, "Run takes work", func() bool { return h.Running() })
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

type status struct {
	ID, Operation, Actor, State string
	Progress, Result            map[string]any
	Problem                     *admin.Problem
	Finished                    *time.Time
}

func start(t *testing.T, h *admin.Handler, key string) admin.Started {
	t.Helper()
	w := serve(h, request("POST", "/start/"+key, ""))
	if w.Code != 202 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	s := decode[admin.Started](t, w)
	if s.Status != "/api/v1/operations/"+s.Operation || w.Header().Get("Location") == "" {
		t.Fatalf("%+v, Location %q", s, w.Header().Get("Location"))
	}
	return s
}

func ask(t *testing.T, h *admin.Handler, s admin.Started) status {
	t.Helper()
	return decode[status](t, serve(h, request("GET", s.Status, "")))
}

func TestBackgroundLifecycle(t *testing.T) {
	proceed, reported := make(chan struct{}), make(chan struct{})
	var late admin.Progress
	h := starting(t, map[string]work{
		"slow": func(ctx context.Context, progress admin.Progress) (any, error) {
			state := map[string]int{"done": 1, "of": 2}
			progress(state)
			late = progress
			state["done"] = 99 // what was reported stays as it was
			close(reported)
			<-proceed
			return map[string]int{"rows": 7}, nil
		},
		"panics":   func(context.Context, admin.Progress) (any, error) { panic("the password is hunter2") },
		"fails":    func(context.Context, admin.Progress) (any, error) { return nil, errors.New("dial hunter2") },
		"conflict": func(context.Context, admin.Progress) (any, error) { return nil, admin.Conflict("not the owner") },
		"odd":      func(context.Context, admin.Progress) (any, error) { return func() {}, nil },
		"large":    func(context.Context, admin.Progress) (any, error) { return strings.Repeat("x", 1<<20), nil },
	})
	wantProblem(t, serve(h, request("POST", "/start/slow", "")), 503, "Run")
	running(t, h)

	first := start(t, h, "slow")
	<-reported
	if again := start(t, h, "slow"); again != first {
		t.Fatalf("a second one began: %v and %v", first, again)
	}
	if s := ask(t, h, first); s.State != "running" || s.Actor != "loopback" || s.Operation != "job.start" || s.Progress["done"] != 1.0 || s.Finished != nil {
		t.Fatalf("%+v", s)
	}
	close(proceed)
	eventually(t, "slow is done", func() bool { return ask(t, h, first).State == "done" })
	if s := ask(t, h, first); s.Result["rows"] != 7.0 || s.Problem != nil || s.Finished == nil {
		t.Fatalf("%+v", s)
	}
	late("too late")
	if s := ask(t, h, first); s.Progress["done"] != 1.0 {
		t.Fatalf("progress after the end: %+v", s)
	}
	for key, want := range map[string]int{"panics": 500, "fails": 500, "conflict": 409, "odd": 500, "large": 500} {
		s := start(t, h, key)
		eventually(t, key+" has failed", func() bool { return ask(t, h, s).State == "failed" })
		w := serve(h, request("GET", s.Status, ""))
		if got := decode[status](t, w); got.Problem == nil || got.Problem.Status != want || strings.Contains(w.Body.String(), "hunter2") {
			t.Fatalf("%s: %s", key, w.Body)
		}
	}
	list := decode[struct{ Operations []status }](t, serve(h, request("GET", "/api/v1/operations", "")))
	if n := len(list.Operations); n != 6 || list.Operations[n-1].ID != first.Operation {
		t.Fatalf("%d listed", n)
	}
	wantProblem(t, serve(h, request("GET", "/api/v1/operations/nobody", "")), 404)
	if err := h.Run(t.Context()); err == nil {
		t.Fatal("a second Run")
	}
}

// The end of Run cancels what runs and waits until it has ended.
func TestRunEndsItsWork(t *testing.T) {
	var ended bool
	began := make(chan struct{})
	h := starting(t, map[string]work{"wait": func(ctx context.Context, _ admin.Progress) (any, error) {
		close(began)
		<-ctx.Done()
		ended = true
		return nil, ctx.Err()
	}})
	stop := running(t, h)
	s := start(t, h, "wait")
	<-began
	stop()
	if !ended {
		t.Fatal("Run did not wait")
	}
	if got := ask(t, h, s); got.State != "failed" || got.Problem.Status != 503 {
		t.Fatalf("%+v", got)
	}
	wantProblem(t, serve(h, request("POST", "/start/wait", "")), 503)
}

func TestBackgroundIsBounded(t *testing.T) {
	release := make(chan struct{})
	jobs := map[string]work{"quick": func(context.Context, admin.Progress) (any, error) { return nil, nil }}
	for i := range 65 {
		jobs[fmt.Sprint("held", i)] = func(context.Context, admin.Progress) (any, error) { <-release; return nil, nil }
	}
	h := starting(t, jobs)
	running(t, h)
	held := start(t, h, "held0")
	for i := 1; i < 64; i++ {
		start(t, h, fmt.Sprint("held", i))
	}
	var refused *httptest.ResponseRecorder = serve(h, request("POST", "/start/held64", ""))
	wantProblem(t, refused, 503, "64")
	close(release)
	eventually(t, "all are done", func() bool {
		return ask(t, h, held).State == "done" && serve(h, request("POST", "/start/quick", "")).Code == 202
	})
	for range 300 {
		s := start(t, h, "quick")
		eventually(t, "quick is done", func() bool { return ask(t, h, s).State == "done" })
	}
	list := decode[struct{ Operations []status }](t, serve(h, request("GET", "/api/v1/operations", "")))
	if n := len(list.Operations); n > 201 {
		t.Fatalf("%d are remembered", n)
	}
	wantProblem(t, serve(h, request("GET", held.Status, "")), 404)
}

func TestZeroBackgroundRefuses(t *testing.T) {
	var b admin.Background
	var p *admin.Problem
	if _, err := b.Start("x", "", "me", nil); !errors.As(err, &p) || p.Status != 503 {
		t.Fatal(err)
	}
}

// bomb cannot be written as JSON, nor can anything be said about why.
type bomb struct{}

func (bomb) MarshalJSON() ([]byte, error) { panic("boom") }

func TestBackgroundResultThatPanics(t *testing.T) {
	h := starting(t, map[string]work{
		"result": func(context.Context, admin.Progress) (any, error) { return bomb{}, nil },
		"progress": func(_ context.Context, progress admin.Progress) (any, error) {
			var elsewhere sync.WaitGroup
			elsewhere.Go(func() { progress(bomb{}) })
			elsewhere.Wait()
			return nil, nil
		},
	})
	running(t, h)
	for key, state := range map[string]string{"result": "failed", "progress": "done"} {
		s := start(t, h, key)
		eventually(t, key+" has ended", func() bool { return ask(t, h, s).State == state })
	}
}
