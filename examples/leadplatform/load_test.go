package main_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is people who create leads through the load balancer until they are told to stop.
type load struct {
	clients []*client
	failed  atomic.Int64
	quit    chan struct{}
	group   sync.WaitGroup

	mu           sync.Mutex
	acknowledged []string
}

func startLoad(t *testing.T, base string, people int) *load {
	t.Helper()
	l := &load{quit: make(chan struct{})}
	for n := range people {
		c := newClient(t, base, fmt.Sprintf("person-%d", n))
		l.clients = append(l.clients, c)
		l.group.Go(func() { l.create(c, base) })
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) create(c *client, base string) {
	for {
		pause := 10 * time.Millisecond
		if created, status := c.create(base); status == http.StatusCreated {
			l.mu.Lock()
			l.acknowledged = append(l.acknowledged, created.ID)
			l.mu.Unlock()
		} else {
			l.failed.Add(1)
			pause = 100 * time.Millisecond
		}
		select {
		case <-l.quit:
			return
		case <-time.After(pause):
		}
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}

// stop ends the load and returns the ids of what was acknowledged. It may be called again.
func (l *load) stop() []string {
	l.mu.Lock()
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.mu.Unlock()
	l.group.Wait()
	return l.acknowledged
}
