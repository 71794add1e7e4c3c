package admin

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// probeFresh is how long a probe's answer serves others.
const probeFresh = time.Second

// probe runs one check, once at a time however many ask.
type probe struct {
	check   Check
	timeout time.Duration

	mu     sync.Mutex
	last   *flight // the latest, running or ended
	landed time.Time
}

// flight is one run of a check. Its answer may be read when done is closed.
type flight struct {
	done   chan struct{}
	answer answer
}

type answer struct {
	err  error
	took time.Duration
}

// ask returns the run that is fresh or still going on, or begins one.
func (p *probe) ask(now time.Time) *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil && (p.landed.IsZero() || now.Sub(p.landed) < probeFresh) {
		return p.last
	}
	p.last, p.landed = &flight{done: make(chan struct{})}, time.Time{}
	go p.run(p.last)
	return p.last
}

// run belongs to no request, since many may wait for it; it ends with the check, whose context has the timeout.
func (p *probe) run(f *flight) {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	began := time.Now()
	err := p.call(ctx)
	f.answer = answer{err: err, took: time.Since(began)}
	p.mu.Lock()
	p.landed = time.Now()
	p.mu.Unlock()
	close(f.done)
}

func (p *probe) call(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the check panicked: %v", v)
		}
	}()
	return p.check.Ready(ctx)
}

// wait returns the answer, or that it did not come before the caller's deadline.
func (p *probe) wait(f *flight, deadline, left <-chan struct{}) answer {
	select {
	case <-f.done:
		return f.answer
	default:
	}
	select {
	case <-f.done:
		return f.answer
	case <-deadline:
	case <-left:
	}
	return answer{err: fmt.Errorf("no answer within %v", p.timeout), took: p.timeout}
}
