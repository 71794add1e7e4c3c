package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/hibiken/asynq"
)

// HandleTask registers a handler of asynq's, such as an asynq.ServeMux with its middleware, for the kinds that begin with
// pattern, "" for all; the longest pattern wins, and Handle's kinds are Handle's. It gets the task as asynq gives it: payload and
// headers as they were enqueued, by whichever client, asynq's functions on the context and the ResultWriter. SkipRetry and
// RevokeTask mean what they mean there. What a ServeMux does not know is put back for a worker that does. Metrics count the jobs
// by the pattern, and those of a ServeMux by its own. Reads are ReadSticky. It panics when the pattern is taken, the handler nil,
// or the worker runs already.
func (w *Worker) HandleTask(pattern string, h asynq.Handler) {
	switch _, taken := w.patterns[pattern]; {
	case h == nil:
		panic(fmt.Sprintf("queue: the handler of pattern %q is nil", pattern))
	case taken, w.handlers[pattern].run != nil:
		panic(fmt.Sprintf("queue: pattern %q has a handler already", pattern))
	case w.started.Load():
		panic(fmt.Sprintf("queue: HandleTask for pattern %q is called after Run", pattern))
	}
	w.patterns[pattern] = h
}

// mux is what asynq.ServeMux says of itself.
type mux interface {
	Handler(task *asynq.Task) (h asynq.Handler, pattern string)
}

// handlerOf finds what runs a task.
func (w *Worker) handlerOf(task *asynq.Task) (handler, bool) {
	if h, ok := w.handlers[task.Type()]; ok {
		return h, true
	}
	pattern, found := "", asynq.Handler(nil)
	for p, h := range w.patterns {
		if strings.HasPrefix(task.Type(), p) && (found == nil || len(p) > len(pattern)) {
			pattern, found = p, h
		}
	}
	if found == nil {
		return handler{}, false
	}
	if m, ok := found.(mux); ok {
		if found, pattern = m.Handler(task); pattern == "" {
			return handler{}, false
		}
	}
	if pattern == "" {
		pattern = "any"
	}
	return handler{name: pattern, run: func(ctx context.Context, task *asynq.Task) error { return found.ProcessTask(ctx, task) }}, true
}
