package simulate

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// link is a process's connection to a server, with the delays and faults of its world. Like a kernel it takes what both
// sides write at once: they write with locks held, and a lock that is waited for does not let the bubble's time go on.
type link struct {
	net.Conn // to the server
	world    *world
	process  string
	nameOf   func(message []byte) string
	closed   chan struct{}
	close    func()
	more     chan struct{} // to carry
	news     chan struct{} // to read, or a deadline was set

	mu       sync.Mutex
	out, in  []message
	deadline time.Time // of reads
	last     message   // that has arrived at the server; what becomes of answers depends on it
}

type message struct {
	bytes []byte
	name  string
	at    time.Duration // when it arrives
	fault faultKind
	spoil bool // by fault
	err   error
	// answered is when the server said it, by Redis's clock, until its process hears of that.
	answered time.Time
}

func newLink(w *world, process string, conn net.Conn, nameOf func([]byte) string) *link {
	l := &link{
		Conn: conn, world: w, process: process, nameOf: nameOf,
		closed: make(chan struct{}), more: make(chan struct{}, 1), news: make(chan struct{}, 1),
	}
	l.close = sync.OnceFunc(func() {
		close(l.closed)
		_ = conn.Close()
	})
	go l.carry()
	go l.listen()
	return l
}

// Write sends a message on its way.
func (l *link) Write(b []byte) (int, error) {
	select {
	case <-l.closed:
		return 0, net.ErrClosed
	default:
	}
	m := message{bytes: append([]byte(nil), b...), name: l.nameOf(b), at: l.world.now()}
	if m.name != "" {
		m.at, m.fault, m.spoil = l.world.fate(l.process, m.name)
		l.world.sent(l.process, m.name)
	}
	l.mu.Lock()
	l.out = append(l.out, m)
	l.mu.Unlock()
	ring(l.more)
	return len(b), nil
}

// carry takes messages to the server, in their order.
func (l *link) carry() {
	for {
		l.mu.Lock()
		waiting := l.out
		l.out = nil
		l.mu.Unlock()
		for _, m := range waiting {
			if !l.sleep(m.at-l.world.now()) || !l.deliver(m) {
				return
			}
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

// deliver reports whether more can come.
func (l *link) deliver(m message) bool {
	l.mu.Lock()
	l.last = m
	l.mu.Unlock()
	switch {
	case m.spoil && m.fault == lostRequest:
		return false
	case m.spoil && m.fault == closedBefore:
		l.answer(message{err: io.EOF})
		return false
	}
	l.world.redis.SetTime(l.world.redisNow())
	_, err := l.Conn.Write(m.bytes)
	return err == nil && !m.spoil
}

// listen takes in what the server says.
func (l *link) listen() {
	for {
		b := make([]byte, 4096)
		n, err := l.Conn.Read(b)
		if err != nil {
			l.answer(message{err: err})
			return
		}
		l.mu.Lock()
		last := l.last
		l.mu.Unlock()
		answered := l.world.redisNow()
		if !last.spoil {
			l.answer(message{bytes: b[:n], name: last.name, answered: answered})
			continue
		}
		l.world.heard(l.process, b[:n], answered, true)
		if last.fault == closedAfter {
			l.answer(message{err: io.EOF})
			return
		}
	}
}

// answer sends an answer on its way back.
func (l *link) answer(m message) {
	m.at = l.world.back(l.process, m.name)
	if m.err != nil {
		m.at = next(l.world.now(), delivered)
	}
	l.mu.Lock()
	l.in = append(l.in, m)
	l.mu.Unlock()
	ring(l.news)
}

// Read waits for an answer, or for the deadline, which may be set meanwhile.
func (l *link) Read(into []byte) (int, error) {
	for {
		l.mu.Lock()
		now, until, late := l.world.now(), time.Duration(-1), false
		if len(l.in) > 0 {
			until = l.in[0].at
			if until <= now {
				n, err := l.take(into)
				l.mu.Unlock()
				return n, err
			}
		}
		if !l.deadline.IsZero() {
			if at := l.deadline.Sub(l.world.began); until < 0 || at < until {
				until, late = at, true
			}
		}
		l.mu.Unlock()
		var timer *time.Timer
		var over <-chan time.Time
		if until >= 0 || late {
			timer = time.NewTimer(until - now)
			over = timer.C
		}
		select {
		case <-over:
		case <-l.news:
			late = false
		case <-l.closed:
			return 0, net.ErrClosed
		}
		if timer != nil {
			timer.Stop()
		}
		if late {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// take reads what has arrived. l.mu is held.
func (l *link) take(into []byte) (int, error) {
	m := &l.in[0]
	if m.err != nil {
		return 0, m.err
	}
	if !m.answered.IsZero() { // what its process does not wait for any more is as good as lost
		l.world.heard(l.process, m.bytes, m.answered, false)
		m.answered = time.Time{}
	}
	n := copy(into, m.bytes)
	if m.bytes = m.bytes[n:]; len(m.bytes) == 0 {
		l.in = l.in[1:]
	}
	return n, nil
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

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
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
	ring(l.news)
	return nil
}

func (l *link) SetWriteDeadline(time.Time) error { return nil }

// An answer that its process does not wait for any more is as good as lost.
func TestLateAnswersAreNotHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var heard []time.Time
		w.heard = func(_ string, _ []byte, answered time.Time, lost bool) {
			if !lost {
				heard = append(heard, answered)
			}
		}
		conn, err := w.redis.Dial()
		if err != nil {
			t.Fatal(err)
		}
		w.admit("process")
		l := newLink(w, "process", conn, commandName)
		defer l.Close()
		if _, err := l.Write([]byte("*1\r\n$4\r\nPING\r\n")); err != nil {
			t.Fatal(err)
		}
		between := w.began.Add(arrived + 2*apart)
		_ = l.SetReadDeadline(between)
		if _, err := l.Read(make([]byte, 9)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(heard) != 0 {
			t.Error("an answer counts that was not read")
		}
		_ = l.SetReadDeadline(time.Time{})
		if _, err := l.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Read(make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		if len(heard) != 1 || heard[0].After(between) {
			t.Errorf("it was heard as answered at %v", heard)
		}
	})
}
