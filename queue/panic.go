package queue

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hibiken/asynq"
)

// PanicError is a handler's panic, as the error of its attempt.
type PanicError struct {
	// Value is what it panicked with.
	Value any
	// Where is the file and line, as file:line.
	Where string
	// Stack is a function and its file:line on each two lines, the one that panicked first, up to the handler; 4 KiB at most.
	Stack string
}

// Error is one line.
func (e *PanicError) Error() string {
	const most = 1 << 10
	text := strings.ToValidUTF8(strings.ReplaceAll(fmt.Sprint(e.Value), "\n", " "), "\uFFFD")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return "queue: panic: " + text + " [" + e.Where + "]"
}

// fieldPanic keeps the last panic of a job: its error, a line, and then the stack.
const fieldPanic = "panic"

const maxStack = 4 << 10

// protect turns a panic into an error, that of an error's text, too. Its stack goes to the log.
func (w *Worker) protect(ctx context.Context, run func(context.Context, *asynq.Task) error, task *asynq.Task, queue, id string) (err error) {
	defer func() {
		x := recover()
		if x == nil {
			return
		}
		p := &PanicError{Value: x}
		p.Where, p.Stack = panicked()
		w.jobs.log.Error("queue: a handler panicked", "queue", queue, "kind", task.Type(), "id", id, "panic", p.Error(), "stack", p.Stack)
		err = p
	}()
	return storable(run(ctx, task))
}

// noted writes a panic's stack to its job.
func (w *Worker) noted(ctx context.Context, queue, id string, p *PanicError) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := noteScript.Run(ctx, w.jobs.rdb, []string{taskPrefix(queue) + id}, fieldPanic, p.Error()+"\n"+p.Stack).Err(); err != nil {
		w.jobs.background("panic", err, "queue", queue)
	}
}

// panicked reads the stack of the panic that protect's deferred function recovers from.
func panicked() (where, stack string) {
	const deepest = 64 // more do not fit
	callers := make([]uintptr, deepest)
	frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)]) // from what called the deferred function: the runtime's panic
	var out strings.Builder
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if out.Len() == 0 && strings.HasPrefix(frame.Function, "runtime.") {
			continue
		}
		if strings.HasSuffix(frame.Function, ".(*Worker).protect") {
			break
		}
		at := fmt.Sprintf("%s:%d", frame.File, frame.Line)
		if where == "" {
			where = at
		}
		text := frame.Function + "()\n\t" + at + "\n"
		if out.Len()+len(text) > maxStack {
			break
		}
		out.WriteString(text)
	}
	return where, out.String()
}

// stackOf returns the stack that belongs to a job's last error, of what fieldPanic has.
func stackOf(lastErr, panicked string) string {
	if text, stack, ok := strings.Cut(panicked, "\n"); ok && text == lastErr {
		return stack
	}
	return ""
}

// textError is an error that has bytes in it which no text has, and which asynq could not store.
type textError struct{ error }

func (e textError) Error() string { return strings.ToValidUTF8(e.error.Error(), "\uFFFD") }
func (e textError) Unwrap() error { return e.error }

func storable(err error) error {
	if err == nil || utf8.ValidString(err.Error()) {
		return err
	}
	return textError{err}
}
