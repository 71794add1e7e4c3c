package faultconn

import (
	"net"
	"sync"
)

// link is one client's connection and the one to the server that belongs to it.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	done   chan struct{} // closed when the link has ended

	mu       sync.Mutex
	server   *net.TCPConn // nil until dialled
	ended    bool
	isolated Direction // leads to the side that is closed without the other's knowing; 0: none is
	holed    bool      // bytes were dropped
}

func (l *link) run(target string) {
	defer l.proxy.forget(l)
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(l.proxy.ctx, "tcp", target)
	if err != nil {
		l.reset()
		return
	}
	server := conn.(*net.TCPConn)
	if !l.attach(server) {
		server.SetLinger(0)
		server.Close()
		l.reset()
		return
	}
	var pumps sync.WaitGroup
	for _, p := range []*pump{
		{link: l, dir: ToServer, from: l.client, to: server, queue: make(chan item, queued)},
		{link: l, dir: ToClient, from: server, to: l.client, queue: make(chan item, queued)},
	} {
		pumps.Go(p.read)
		pumps.Go(p.write)
	}
	pumps.Wait()
	l.linger()
	l.cut()
}

// linger waits, on a link whose pumps have both ended although a side is still open (its end was swallowed), until the
// proxy resets it: at Heal or Close.
func (l *link) linger() {
	l.mu.Lock()
	wait := !l.ended && l.holed
	l.mu.Unlock()
	if wait {
		<-l.done
	}
}

func (l *link) attach(server *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.isolated != 0 {
		return false
	}
	l.server = server
	return true
}

// end closes done once and says whether this call did.
func (l *link) end() bool {
	if l.ended {
		return false
	}
	l.ended = true
	close(l.done)
	return true
}

func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.end() {
		return
	}
	for _, conn := range l.conns() {
		conn.SetLinger(0)
		conn.Close()
	}
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.end() {
		return
	}
	for _, conn := range l.conns() {
		// FIN goes out before Close can turn unread input into RST.
		conn.CloseWrite()
		conn.Close()
	}
}

func (l *link) conns() []*net.TCPConn {
	if l.server == nil {
		return []*net.TCPConn{l.client}
	}
	return []*net.TCPConn{l.client, l.server}
}

func (l *link) finish(dir Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
	case dir == ToClient:
		l.client.CloseWrite()
	case l.server != nil:
		l.server.CloseWrite()
	}
}

// isolate closes the side that dir leads to and keeps the other one open and silent.
func (l *link) isolate(dir Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.isolated != 0 {
		return
	}
	l.isolated, l.holed = dir, true
	switch {
	case dir == ToClient:
		l.client.Close()
	case l.server != nil:
		l.server.Close()
	}
}

// fail is called when the connection to which dir leads broke. The other side learns of it, unless what flows back to
// it is being swallowed or held.
func (l *link) fail(dir Direction) {
	back := Both &^ dir
	if f, _ := l.proxy.conditions.get(back); f.drop || f.stall {
		l.isolate(dir)
		return
	}
	if l.closed() == 0 {
		l.reset()
	}
}

func (l *link) hole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holed = true
}

// closed is the direction that leads to the closed side of an isolated link, else 0.
func (l *link) closed() Direction {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isolated
}

func (l *link) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holed
}
