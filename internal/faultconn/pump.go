package faultconn

import (
	"errors"
	"io"
	"net"
	"time"
)

const (
	chunk  = 32 << 10
	queued = 64 // chunks under way per direction; bounds the memory of a delayed or stalled direction to 2 MiB
	slices = 50 // writes per second into which a limited bandwidth is cut
)

// item is what arrived from one side in one read: bytes, or the end of the stream.
type item struct {
	data []byte
	end  error // io.EOF for FIN
	at   time.Time
}

// pump carries one direction of a link.
type pump struct {
	link  *link
	dir   Direction
	from  *net.TCPConn
	to    *net.TCPConn
	queue chan item
	free  time.Time // when the limited bandwidth allows the next write
}

func (p *pump) read() {
	defer close(p.queue)
	buffer := make([]byte, chunk)
	for {
		n, err := p.from.Read(buffer)
		if n > 0 && !p.put(item{data: append([]byte(nil), buffer[:n]...), at: time.Now()}) {
			return
		}
		if err != nil {
			p.put(item{end: err, at: time.Now()})
			return
		}
	}
}

func (p *pump) put(it item) bool {
	select {
	case p.queue <- it:
		return true
	case <-p.link.done:
		return false
	}
}

func (p *pump) write() {
	failed := false
	for it := range p.queue {
		if failed {
			continue // the reader goes on until its side ends
		}
		if it.end != nil {
			p.finish(it)
			continue
		}
		for len(it.data) > 0 && !failed {
			n, ok := p.await(it)
			if !ok {
				break
			}
			if _, err := p.to.Write(it.data[:n]); err != nil {
				failed = true
				p.link.fail(p.dir)
			}
			it.data = it.data[n:]
		}
	}
}

// finish passes the end of the stream on: FIN as FIN, anything else as RST.
func (p *pump) finish(it item) {
	if closed := p.link.closed(); closed != 0 {
		if closed == p.dir { // the other side is closed, and ours has left by itself
			p.link.reset()
		}
		return
	}
	if _, ok := p.await(it); !ok {
		return
	}
	if errors.Is(it.end, io.EOF) {
		p.to.CloseWrite()
		return
	}
	p.link.reset()
}

// await blocks until the item may be delivered and says how many of its bytes; false: it is swallowed.
func (p *pump) await(it item) (int, bool) {
	for {
		f, changed := p.link.proxy.conditions.get(p.dir)
		if f.drop || p.link.closed() != 0 {
			p.link.hole()
			return 0, false
		}
		var wait time.Duration
		now := time.Now()
		if f.delay > 0 {
			wait = it.at.Add(f.delay).Sub(now)
		}
		if f.rate > 0 {
			wait = max(wait, p.free.Sub(now))
		}
		if !f.stall && wait <= 0 {
			return p.take(len(it.data), f.rate, now), true
		}
		if !p.sleep(wait, f.stall, changed) {
			return 0, false
		}
	}
}

func (p *pump) take(size int, rate int64, now time.Time) int {
	if rate == 0 || size == 0 {
		return size
	}
	n := min(size, int(max(1, rate/slices)))
	p.free = now.Add(time.Duration(n) * time.Second / time.Duration(rate))
	return n
}

// sleep waits for the time, for a change of conditions (the caller decides anew) or for the link's end (false).
func (p *pump) sleep(wait time.Duration, forever bool, changed <-chan struct{}) bool {
	var expired <-chan time.Time
	if !forever {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-expired:
	case <-changed:
	case <-p.link.done:
		return false
	}
	return true
}
