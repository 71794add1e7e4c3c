package faultconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds the connection to the target, so that Close and the client never wait for an unreachable one.
const dialTimeout = 10 * time.Second

// Proxy forwards connections to one target and injects faults into them.
type Proxy struct {
	port       *port
	conditions conditions
	ctx        context.Context //nolint:containedctx // ends the dials of this proxy, at Close
	cancel     context.CancelFunc
	wg         sync.WaitGroup // every goroutine except the accept loop

	mu       sync.Mutex
	target   string
	links    map[*link]struct{}
	accepted int
	closed   bool
	listener net.Listener  // nil while refusing
	loop     chan struct{} // closed when the accept loop of listener has ended
}

// New starts a proxy on a loopback port in front of target, a TCP "host:port". The caller closes it.
func New(target string) (*Proxy, error) {
	if _, _, err := net.SplitHostPort(target); err != nil {
		return nil, fmt.Errorf("faultconn: target must be host:port: %w", err)
	}
	port, err := reserve()
	if err != nil {
		return nil, fmt.Errorf("faultconn: reserve a loopback port: %w", err)
	}
	p := &Proxy{
		port:       port,
		conditions: conditions{changed: make(chan struct{})},
		target:     target,
		links:      make(map[*link]struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.listen(); err != nil {
		p.cancel()
		port.release()
		return nil, err
	}
	return p, nil
}

// Addr is the "host:port" that clients dial. It stays the same through Refuse and Heal.
func (p *Proxy) Addr() string { return p.port.addr }

// Accepted is the number of connections that clients have opened so far.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Open is the number of connections that are open at the moment, on either side.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Retarget sends the connections to come to another "host:port"; those that exist stay where they are.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Close resets every connection, frees the port and waits for the proxy's goroutines. It may be called twice.
func (p *Proxy) Close() error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	p.stopListening()
	p.cancel()
	p.each((*link).reset)
	p.wg.Wait()
	if first {
		p.port.release()
	}
	return nil
}

// listen opens the port and starts its accept loop; it does nothing when the port is open or the proxy closed.
func (p *Proxy) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.listener != nil {
		return nil
	}
	listener, err := p.port.listen()
	if err != nil {
		return fmt.Errorf("faultconn: listen on %s: %w", p.port.addr, err)
	}
	p.listener, p.loop = listener, make(chan struct{})
	go p.accept(listener, p.loop)
	return nil
}

func (p *Proxy) stopListening() {
	p.mu.Lock()
	listener, loop := p.listener, p.loop
	p.listener = nil
	p.mu.Unlock()
	if listener != nil {
		listener.Close()
	}
	if loop != nil {
		<-loop
	}
}

func (p *Proxy) accept(listener net.Listener, loop chan<- struct{}) {
	defer close(loop)
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond) // ECONNABORTED, or no descriptor left: the latter must not spin
			continue
		}
		l := &link{proxy: p, client: conn.(*net.TCPConn), done: make(chan struct{})}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			l.reset()
			return
		}
		p.accepted++
		p.links[l] = struct{}{}
		target := p.target
		p.wg.Go(func() { l.run(target) })
		p.mu.Unlock()
	}
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// each calls f for the connections of this moment, outside the lock.
func (p *Proxy) each(f func(*link)) {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		f(l)
	}
}
