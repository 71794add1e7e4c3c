package faultconn

import (
	"fmt"
	"time"
)

// Delay makes every byte of a direction arrive d later than it was sent. Zero ends it.
func (p *Proxy) Delay(dir Direction, d time.Duration) {
	p.conditions.set(dir, func(f *fault) { f.delay = max(0, d) })
}

// Bandwidth lets at most bytesPerSec through, per connection and direction. Zero means no limit.
func (p *Proxy) Bandwidth(dir Direction, bytesPerSec int64) {
	p.conditions.set(dir, func(f *fault) { f.rate = max(0, bytesPerSec) })
}

// Stall holds what is sent, including the end of the stream, and delivers it at Heal. The proxy goes on reading until its
// buffer is full (64 reads), then the sender blocks.
func (p *Proxy) Stall(dir Direction) {
	p.conditions.set(dir, func(f *fault) { f.stall = true })
}

// Blackhole accepts what is sent and delivers none of it, not even the end of the stream. Heal resets the connections that
// lost something.
func (p *Proxy) Blackhole(dir Direction) {
	p.conditions.set(dir, func(f *fault) { f.drop = true })
}

// Cut ends every existing connection on both sides with FIN, as the kernel does for a process that exits. What was still
// under way is lost.
func (p *Proxy) Cut() { p.each((*link).cut) }

// Reset ends every existing connection on both sides with RST.
func (p *Proxy) Reset() { p.each((*link).reset) }

// Finish ends the stream of one direction of every existing connection with FIN and leaves the other direction in use.
func (p *Proxy) Finish(dir Direction) {
	p.each(func(l *link) {
		if dir&ToServer != 0 {
			l.finish(ToServer)
		}
		if dir&ToClient != 0 {
			l.finish(ToClient)
		}
	})
}

// HalfOpen closes the server's side of every existing connection. The client is told nothing: its connection stays open,
// what it sends is swallowed, no answer comes. Heal resets it.
func (p *Proxy) HalfOpen() { p.each(func(l *link) { l.isolate(ToServer) }) }

// Orphan closes the client's side of every existing connection. The server is told nothing. Heal resets it.
func (p *Proxy) Orphan() { p.each(func(l *link) { l.isolate(ToClient) }) }

// Refuse makes new connections fail with "connection refused", until Heal. Use Cut or Reset as well to end the others.
func (p *Proxy) Refuse() { p.stopListening() }

// Heal ends every fault: new connections are accepted, held bytes are delivered, and connections that lost bytes are reset.
func (p *Proxy) Heal() {
	p.conditions.set(Both, func(f *fault) { *f = fault{} })
	p.each(func(l *link) {
		if l.lost() {
			l.reset()
		}
	})
	if err := p.listen(); err != nil {
		// The number is reserved, so this is a process without file descriptors: nothing that the test asserts would hold.
		panic(fmt.Sprint(err))
	}
}
