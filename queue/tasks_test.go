package queue

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// seenTask is what an asynq handler finds.
type seenTask struct {
	kind, payload, id, queue string
	headers                  map[string]string
	retried                  int
	before                   string // the middleware's
}

type beforeKey struct{}

// asynqMux is one as services of asynq have it, with a middleware of its own.
func asynqMux(seen chan<- seenTask) *asynq.ServeMux {
	mux := asynq.NewServeMux()
	mux.Use(func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			return next.ProcessTask(context.WithValue(ctx, beforeKey{}, "middleware for "+task.Type()), task)
		})
	})
	mux.HandleFunc("email:", func(ctx context.Context, task *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		queue, _ := asynq.GetQueueName(ctx)
		retried, _ := asynq.GetRetryCount(ctx)
		before, _ := ctx.Value(beforeKey{}).(string)
		seen <- seenTask{task.Type(), string(task.Payload()), id, queue, maps.Clone(task.Headers()), retried, before}
		if retried == 0 {
			return errors.New("once more")
		}
		_, err := task.ResultWriter().Write([]byte("sent by " + task.ResultWriter().TaskID()))
		return err
	})
	mux.HandleFunc("skip", func(context.Context, *asynq.Task) error { return asynq.SkipRetry })
	mux.HandleFunc("revoke", func(context.Context, *asynq.Task) error { return asynq.RevokeTask })
	return mux
}

func TestAsynqHandlersStayAsTheyAre(t *testing.T) {
	t.Parallel()
	q := fresh("mux")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	w := newWorker(t, j, &WorkerOptions{RetryDelay: func(int, error) time.Duration { return 0 }})
	seen := make(chan seenTask, 10)
	w.HandleTask("", asynqMux(seen))
	var typed atomic.Int64
	Handle(w, func(context.Context, note) error { typed.Add(1); return nil })
	start(t, w)

	producer := asynq.NewClientFromRedisClient(rdb)
	payload := "\x00\xff not JSON {"
	headers := map[string]string{"trace": "00-ab", "tenant": "ä"}
	if _, err := producer.Enqueue(asynq.NewTaskWithHeaders("email:send", []byte(payload), headers), asynq.Queue(q), asynq.TaskID("one"), asynq.Retention(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for retried := range 2 {
		got := <-seen
		if got.kind != "email:send" || got.payload != payload || got.id != "one" || got.queue != q || got.retried != retried ||
			!maps.Equal(got.headers, headers) || got.before != "middleware for email:send" {
			t.Errorf("attempt %d: the handler got %+v", retried, got)
		}
	}
	eventually(t, 10*time.Second, "the result is stored", func() bool {
		info, err := j.asynq.GetTaskInfo(q, "one")
		return err == nil && info.State == asynq.TaskStateCompleted && string(info.Result) == "sent by one"
	})

	// Ours reach it, too, and Handle's kinds stay Handle's.
	if _, err := j.Enqueue(t.Context(), mail{To: "ada"}, On(q), Header("trace", "00-cd")); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.kind != "email:typed" || got.payload != `{"to":"ada"}` || got.headers["trace"] != "00-cd" {
		t.Errorf("of a job of ours the handler got %+v", got)
	}
	enqueue(t, j, q, 1)
	eventually(t, 10*time.Second, "the typed handler ran", func() bool { return typed.Load() == 1 })

	// SkipRetry fails at once, RevokeTask is the end, and what the mux does not know waits for a worker that does.
	for _, kind := range []string{"skip", "revoke", "unheard-of"} {
		if _, err := producer.Enqueue(asynq.NewTask(kind, nil), asynq.Queue(q), asynq.TaskID(kind), asynq.MaxRetry(5)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, "one failed, one waits, one is gone", func() bool {
		skipped, err := j.asynq.GetTaskInfo(q, "skip")
		unknown, err2 := j.asynq.GetTaskInfo(q, "unheard-of")
		_, gone := j.asynq.GetTaskInfo(q, "revoke")
		return err == nil && err2 == nil && skipped.State == asynq.TaskStateArchived && errors.Is(gone, asynq.ErrTaskNotFound) &&
			unknown.State == asynq.TaskStateRetry && unknown.Retried == 0
	})
}

type mail struct {
	To string `json:"to"`
}

func (mail) Kind() string { return "email:typed" }

func TestHandleTaskPatterns(t *testing.T) {
	t.Parallel()
	q := fresh("patterns")
	rdb := client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	w := newWorker(t, j, nil)
	ran := make(chan string, 10)
	named := func(name string) asynq.Handler {
		return asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error { ran <- name + " " + task.Type(); return nil })
	}
	w.HandleTask("image:", named("prefix"))
	w.HandleTask("image:resize", named("longer"))
	// A mux behind a handler says what it does not know by its error.
	inner := asynq.NewServeMux()
	inner.Handle("known", named("inner"))
	w.HandleTask("known", asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error { return inner.ProcessTask(ctx, task) }))
	w.HandleTask("knot", asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error { return inner.ProcessTask(ctx, task) }))
	start(t, w)
	producer := asynq.NewClientFromRedisClient(rdb)
	for kind, want := range map[string]string{"image:crop": "prefix image:crop", "image:resize:s": "longer image:resize:s", "known": "inner known", "knot": "", "imag": ""} {
		if _, err := producer.Enqueue(asynq.NewTask(kind, nil), asynq.Queue(q), asynq.TaskID(kind), asynq.MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
		if want == "" {
			eventually(t, 10*time.Second, kind+" waits for a worker that knows it", func() bool {
				info, err := j.asynq.GetTaskInfo(q, kind)
				return err == nil && info.State == asynq.TaskStateRetry && info.Retried == 0
			})
		} else if got := <-ran; got != want {
			t.Errorf("of %q ran %q, want %q", kind, got, want)
		}
	}
}

func TestHandleTaskRefuses(t *testing.T) {
	rdb := client(t, []string{"127.0.0.1:1"})
	j := newJobs(t, rdb, nil, Queue{Name: "a"})
	w := newWorker(t, j, nil)
	ok := asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })
	w.HandleTask("a", ok)
	Handle(w, func(context.Context, note) error { return nil })
	for want, do := range map[string]func(){
		`pattern "a" has a handler already`: func() { w.HandleTask("a", ok) },
		`"test.note" has a handler already`: func() { w.HandleTask("test.note", ok) },
		"is nil":                            func() { w.HandleTask("b", nil) },
		"after Run":                         func() { w.started.Store(true); w.HandleTask("c", ok) },
	} {
		func() {
			defer func() {
				if x, _ := recover().(string); !strings.Contains(x, want) {
					t.Errorf("panicked with %q, want %q", x, want)
				}
			}()
			do()
		}()
	}
}
