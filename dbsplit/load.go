package dbsplit

import (
	"sync/atomic"
	"time"
)

// load is what routing weighs a node by. It is kept by atomics: asking the pool would allocate on every read.
type load struct {
	inflight atomic.Int64
	latency  atomic.Int64 // moving average in ns; 0 before the first answer
	answered atomic.Int64 // ns since the DB was opened
	suspect  atomic.Int64 // when a read last lost its connection, in ns since the DB was opened; 0 once a later probe has succeeded
}

// minLatency is where averages begin, and below which nodes are alike.
const minLatency = int64(500 * time.Microsecond)

func (l *load) begin() { l.inflight.Add(1) }

func (l *load) end() { l.inflight.Add(-1) }

// doubt notes that a read lost its connection at now.
func (l *load) doubt(now time.Duration) { l.suspect.Store(max(1, int64(now))) }

// trust notes that a probe has succeeded which was sent at sent. It says nothing about what was lost after that.
func (l *load) trust(sent time.Duration) {
	if failed := l.suspect.Load(); failed != 0 && failed < int64(sent) {
		l.suspect.CompareAndSwap(failed, 0)
	}
}

// answer notes an answer to what was sent at begun. Both times count from when the DB was opened.
func (l *load) answer(begun, now time.Duration) {
	old := max(l.latency.Load(), minLatency)
	took := min(int64(now-begun), 8*old) // a hiccup of this process is no property of the node
	l.latency.Store(old + (took-old)/8)  // a lost update of two at once costs one sample
	l.answered.Store(int64(now))
}

// halving is how long without an answer halves a node's average, so that one slow sample does not starve it of the
// reads that would correct it.
const halving = 100 * time.Millisecond

// average is the moving average in ns.
func (l *load) average(now time.Duration) int64 {
	average := l.latency.Load()
	if idle := now - time.Duration(l.answered.Load()); idle >= halving {
		average >>= min(uint64(idle/halving), 62)
	}
	return max(minLatency, average)
}
