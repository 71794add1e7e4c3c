package simulate

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// link is a process's connection to a server, with the delays and faults of its world. Like a kernel's, its Write does not
// wait: clients write with locks held, and a lock does not let the bubble's time go on.
type link struct {
	net.Conn
	world   *world
	process string
	nameOf  func(message []byte) string
	closed  chan struct{}
	close   func()
	more    chan struct{}
	set     chan struct{} // a deadline was set

	mu       sync.Mutex
	under    []message // on their way
	deadline time.Time // of reads
	// What becomes of the answer to the message that arrived last.
	name  string
	fault faultKind
	spoil bool
}

type message struct {
	bytes   []byte
	name    string
	arrives time.Duration
	fault   faultKind
	spoil   bool
}

func newLink(w *world, process string, conn net.Conn, nameOf func([]byte) string) *link {
	l := &link{Conn: conn, world: w, process: process, nameOf: nameOf, closed: make(chan struct{}), more: make(chan struct{}, 1), set: make(chan struct{}, 1)}
	l.close = sync.OnceFunc(func() {
		close(l.closed)
		_ = conn.Close()
	})
	go l.carry()
	return l
}

// Write sends a message on its way.
func (l *link) Write(b []byte) (int, error) {
	select {
	case <-l.closed:
		return 0, net.ErrClosed
	default:
	}
	m := message{bytes: append([]byte(nil), b...), name: l.nameOf(b), arrives: l.world.now()}
	if m.name != "" {
		m.arrives, m.fault, m.spoil = l.world.fate(l.process, m.name)
	}
	l.mu.Lock()
	l.under = append(l.under, m)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

// carry takes messages to the server, in their order.
func (l *link) carry() {
	for {
		l.mu.Lock()
		waiting := l.under
		l.under = nil
		l.mu.Unlock()
		for _, m := range waiting {
			if !l.sleep(m.arrives - l.world.now()) {
				return
			}
			l.deliver(m)
		}
		if len(waiting) > 0 {
			continue
		}
		select {
		case <-l.more:
		case <-l.closed:
			return
		}
	}
}

func (l *link) deliver(m message) {
	l.mu.Lock()
	silent := l.spoil && l.fault != closedAfter // nothing comes through any more
	if !silent {
		l.name, l.fault, l.spoil = m.name, m.fault, m.spoil
	}
	l.mu.Unlock()
	switch {
	case silent, m.spoil && m.fault == lostRequest:
	case m.spoil && m.fault == closedBefore:
		l.close()
	default:
		l.world.redis.SetTime(l.world.redisNow())
		_, _ = l.Conn.Write(m.bytes)
	}
}

// Read is an answer's way back.
func (l *link) Read(into []byte) (int, error) {
	for {
		n, err := l.Conn.Read(into)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				time.Sleep(next(l.world.now(), delivered) - l.world.now())
			}
			return n, err
		}
		l.world.heard(l.process, into[:n])
		l.mu.Lock()
		name, fault, spoil := l.name, l.fault, l.spoil
		l.mu.Unlock()
		switch {
		case !spoil:
			return n, l.arrive(l.world.back(l.process, name))
		case fault == closedAfter:
			l.close()
			time.Sleep(next(l.world.now(), delivered) - l.world.now())
			return 0, io.EOF
		}
	}
}

// arrive waits until an answer is there, or a deadline, which may be set meanwhile.
func (l *link) arrive(at time.Duration) error {
	for {
		l.mu.Lock()
		deadline := l.deadline
		l.mu.Unlock()
		wait, late := at-l.world.now(), !deadline.IsZero() && time.Until(deadline) < at-l.world.now()
		if late {
			wait = time.Until(deadline)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			if late {
				return os.ErrDeadlineExceeded
			}
			return nil
		case <-l.set:
		case <-l.closed:
			return net.ErrClosed
		}
		timer.Stop()
	}
}

// sleep reports whether the connection still stands after it.
func (l *link) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.closed:
		return false
	}
}

func (l *link) Close() error {
	l.close()
	return nil
}

func (l *link) SetDeadline(t time.Time) error { return l.SetReadDeadline(t) }

func (l *link) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	l.deadline = t
	l.mu.Unlock()
	select {
	case l.set <- struct{}{}:
	default:
	}
	return l.Conn.SetReadDeadline(t)
}

func (l *link) SetWriteDeadline(time.Time) error { return nil }
