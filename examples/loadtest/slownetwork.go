package main

import (
	"context"
	"net"
	"os"
	"sync"
	"time"
)

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// slowNetwork dials connections whose answers come late when it is told so.
type slowNetwork struct {
	next dialer

	mu     sync.Mutex
	late   time.Duration
	healed chan struct{}
}

func newSlowNetwork(next dialer) *slowNetwork {
	if next == nil {
		next = (&net.Dialer{Timeout: 2 * time.Second}).DialContext
	}
	return &slowNetwork{next: next, healed: make(chan struct{})}
}

func (s *slowNetwork) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := s.next(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: conn, network: s}, nil
}

func (s *slowNetwork) delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = d
}

// heal ends the delay, of answers that wait already too.
func (s *slowNetwork) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = 0
	close(s.healed)
	s.healed = make(chan struct{})
}

func (s *slowNetwork) state() (time.Duration, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late, s.healed
}

// slowConn keeps the deadline of a read in mind, which the network's lateness must not outlast.
type slowConn struct {
	net.Conn
	network *slowNetwork

	mu       sync.Mutex
	deadline time.Time
}

func (c *slowConn) SetDeadline(t time.Time) error {
	c.remember(t)
	return c.Conn.SetDeadline(t)
}

func (c *slowConn) SetReadDeadline(t time.Time) error {
	c.remember(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *slowConn) remember(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
}

func (c *slowConn) Read(b []byte) (int, error) {
	if late, healed := c.network.state(); late > 0 {
		missed := false
		c.mu.Lock()
		if left := time.Until(c.deadline); !c.deadline.IsZero() && left < late {
			late, missed = left, true
		}
		c.mu.Unlock()
		select {
		case <-time.After(late):
			if missed { // what is there by now came before the deadline, but was to come after it
				return 0, os.ErrDeadlineExceeded
			}
		case <-healed:
		}
	}
	return c.Conn.Read(b)
}
