package queue

import (
	"log/slog"
	"sync"
	"time"
)

// remarks logs failures of background work, of each task once a second at most: while Redis is away every fetch fails.
type remarks struct {
	log *slog.Logger

	mu    sync.Mutex
	tasks map[string]*remark
}

type remark struct {
	last  time.Time
	muted int
}

func (r *remarks) failed(task string, err error, args ...any) {
	muted, ok := r.due(task, time.Now())
	if !ok {
		return
	}
	r.log.Warn("queue: background work failed", append([]any{"task", task, "error", err, "muted", muted}, args...)...)
}

// due says whether task may be logged now, and how often it was not since the last time.
func (r *remarks) due(task string, now time.Time) (muted int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tasks[task]
	if t == nil {
		t = new(remark)
		if r.tasks == nil {
			r.tasks = map[string]*remark{}
		}
		r.tasks[task] = t
	}
	if now.Sub(t.last) < time.Second {
		t.muted++
		return 0, false
	}
	muted, t.muted, t.last = t.muted, 0, now
	return muted, true
}
