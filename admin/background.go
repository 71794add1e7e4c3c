package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	maxRunning  = 64  // background operations at once
	maxFinished = 200 // finished ones that are remembered
)

// Background runs the long work of operations. Its zero value refuses work; the one in Call runs it while
// Handler.Run does.
type Background struct {
	log *slog.Logger

	mu       sync.Mutex
	ctx      context.Context // nil before Run
	ended    bool            // Run no longer takes work
	work     sync.WaitGroup
	jobs     map[string]*job
	order    []*job // oldest first
	running  map[[2]string]*job
	finished int
}

// Progress is reported by long work while it runs: any JSON object. It may be called from any goroutine.
type Progress func(state any)

// Started is the reply to a call whose work goes on in the background.
type Started struct {
	// Operation is the id to ask GET /api/v1/operations/{id} for.
	Operation string `json:"operation"`
	// Status is where to ask.
	Status string `json:"status"`
}

// Start begins work under a context that outlives the request, and returns the 202 reply. id is the operation's ID.
// While work with the same id and key runs, Start returns the running one's reply instead of beginning another.
// The context ends when Handler.Run's does. An error made by this package's constructors is shown to those who ask for
// the status; any other goes to the log. While Run does not run, and while 64 others do, Start's error is a 503.
func (b *Background) Start(id, key, actor string, work func(ctx context.Context, progress Progress) (any, error)) (*Started, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil || b.ended || b.ctx.Err() != nil {
		return nil, Unavailable(nil, "%s works in the background and that is not running: it starts with the service's Run and ends with it", id)
	}
	if j := b.running[[2]string{id, key}]; j != nil {
		return j.started(), nil
	}
	if len(b.running) >= maxRunning {
		return nil, Unavailable(nil, "%d background operations run already: wait for one to end", maxRunning)
	}
	j := &job{id: rand.Text(), operation: id, key: key, actor: actor, began: time.Now()}
	b.jobs[j.id] = j
	b.running[[2]string{id, key}] = j
	b.order = append(b.order, j)
	ctx := b.ctx
	b.work.Go(func() {
		result, err := j.run(ctx, work)
		b.finish(j, result, err)
	})
	return j.started(), nil
}

func (b *Background) finish(j *job, result any, err error) {
	logged := j.end(result, err)
	attrs := []slog.Attr{
		slog.String("operation", j.operation), slog.String("id", j.id), slog.String("actor", j.actor), slog.Duration("duration", time.Since(j.began)),
	}
	if logged == nil {
		b.log.LogAttrs(context.Background(), slog.LevelInfo, "background operation done", attrs...)
	} else {
		b.log.LogAttrs(context.Background(), slog.LevelError, "background operation failed", append(attrs, errorAttrs(logged)...)...)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, [2]string{j.operation, j.key})
	b.finished++
	for i := 0; b.finished > maxFinished && i < len(b.order); i++ {
		if old := b.order[i]; old.done() {
			delete(b.jobs, old.id)
			b.order = append(b.order[:i], b.order[i+1:]...)
			b.finished--
			i--
		}
	}
}

// run lets work begin until ctx ends, then cancels what runs and waits for it.
func (b *Background) run(ctx context.Context) error {
	b.mu.Lock()
	if b.ctx != nil {
		b.mu.Unlock()
		return errors.New("admin: Run was called before: call it once for each New")
	}
	b.ctx = ctx
	b.mu.Unlock()
	<-ctx.Done()
	b.mu.Lock() // whoever saw a live context under the lock has added its work by now
	b.ended = true
	b.mu.Unlock()
	b.work.Wait()
	return nil
}

func (b *Background) status(_ context.Context, call *Call) (any, error) {
	b.mu.Lock()
	j := b.jobs[call.Path("id")]
	b.mu.Unlock()
	if j == nil {
		return nil, NotFound("no background operation %q here: each instance knows its own, and only the last %d that ended", call.Path("id"), maxFinished)
	}
	return j.status(), nil
}

func (b *Background) list(context.Context, *Call) (any, error) {
	b.mu.Lock()
	jobs := append([]*job(nil), b.order...)
	b.mu.Unlock()
	reply := operationList{Operations: make([]operationStatus, 0, len(jobs))}
	for i := len(jobs) - 1; i >= 0; i-- {
		reply.Operations = append(reply.Operations, jobs[i].status())
	}
	return reply, nil
}

func newBackground(log *slog.Logger) *Background {
	return &Background{log: log, jobs: map[string]*job{}, running: map[[2]string]*job{}}
}

func (b *Background) operations() []Operation {
	return []Operation{{
		Method: http.MethodGet, Path: "/api/v1/operations", ID: "admin.operations",
		Summary: "Background operations of this instance, newest first.",
		Reply:   operationList{}, Do: b.list,
	}, {
		Method: http.MethodGet, Path: operationsPath + "{id}", ID: "admin.operation",
		Summary: "State, progress and result of a background operation.",
		Params:  []Param{{Name: "id", In: "path", Type: "string", Description: fmt.Sprintf("The id of the 202 reply. The last %d are remembered.", maxFinished)}},
		Reply:   operationStatus{}, Do: b.status,
	}}
}
