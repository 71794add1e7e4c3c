package dbsplit

import (
	"context"
	"sync"
)

// background is what goes on after the call that has begun it, until Close ends it.
type background struct {
	ctx    context.Context //nolint:containedctx // of the DB's life, from Open to Close
	end    context.CancelFunc
	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

func (b *background) open() { b.ctx, b.end = context.WithCancel(context.Background()) }

// run runs f in a goroutine of its own, with a context that Close ends. It reports false after Close.
func (b *background) run(f func(ctx context.Context)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.tasks.Go(func() { f(b.ctx) })
	return true
}

// recovered is deferred where a hook may panic whose caller has gone on: that is told of, and does not end the process.
func (db *DB) recovered(task string) {
	if p := recover(); p != nil {
		db.panicked(task, p)
	}
}

func (db *DB) panicked(task string, p any) {
	db.in.failed(task)
	db.opts.Logger.Error("dbsplit: a panic behind a caller's back", "db", db.opts.Name, "task", task, "panic", p)
}

func (b *background) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.end()
	b.tasks.Wait()
}
