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
	suspect  atomic.Bool  // a read lost its connection since the last successful probe
}

// minLatency is where averages begin, and below which nodes are alike.
const minLatency = int64(500 * time.Microsecond)

func (l *load) begin() { l.inflight.Add(1) }

func (l *load) end() { l.inflight.Add(-1) }

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
