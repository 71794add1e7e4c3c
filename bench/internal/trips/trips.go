// Package trips counts round trips: a TCP proxy that counts how often a client sends and then gets an answer. Several
// messages sent together (a pipeline) are one trip. The proxy costs time, so count in one run and measure in another.
package trips

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Counter is a proxy in front of one server.
type Counter struct {
	target   string
	listener net.Listener
	count    atomic.Int64
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
}

// New starts a proxy on a loopback port in front of target, a "host:port". The caller closes it.
func New(target string) (*Counter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("trips: %w", err)
	}
	c := &Counter{target: target, listener: l, open: make(map[net.Conn]struct{})}
	c.wg.Go(c.accept)
	return c, nil
}

// Addr is the "host:port" for clients.
func (c *Counter) Addr() string { return c.listener.Addr().String() }

// Count is how many round trips there were so far, over all connections.
func (c *Counter) Count() int64 { return c.count.Load() }

// Close ends the proxy and all connections through it.
func (c *Counter) Close() error {
	err := c.listener.Close()
	c.mu.Lock()
	c.closed = true
	for conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return err
}

func (c *Counter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		c.wg.Go(func() { c.serve(client) })
	}
}

func (c *Counter) serve(client net.Conn) {
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		client.Close()
		return
	}
	if !c.keep(client, server) {
		return
	}
	defer c.drop(client, server)
	var asked atomic.Bool
	var both sync.WaitGroup
	both.Go(func() { c.copy(server, client, func() { asked.Store(true) }) })
	both.Go(func() {
		c.copy(client, server, func() {
			if asked.Swap(false) {
				c.count.Add(1)
			}
		})
	})
	both.Wait()
}

// copy calls note before it passes something on, so that the receiver cannot be ahead of the count.
func (c *Counter) copy(to, from net.Conn, note func()) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			note()
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, from)
}

func (c *Counter) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		if c.closed {
			conn.Close()
		} else {
			c.open[conn] = struct{}{}
		}
	}
	return !c.closed
}

func (c *Counter) drop(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
		delete(c.open, conn)
	}
}
