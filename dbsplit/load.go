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

func (l *load) begin() { l.inflight.Add(1) }

// end notes an answer that took the time since begun. Both times count from when the DB was opened.
func (l *load) end() { l.inflight.Add(-1) }

func (l *load) answer(begun, now time.Duration) {
	took := int64(now - begun)
	if old := l.latency.Load(); old > 0 {
		took = old + (took-old)/8
	}
	l.latency.Store(max(1, took)) // a lost update of two at once costs one sample
	l.answered.Store(int64(now))
}

// cost is lower for a better choice. The average halves with each second without an answer, so that one slow sample
// does not starve a node of the reads that would correct it.
func (l *load) cost(now time.Duration) int64 {
	average := l.latency.Load()
	if idle := now - time.Duration(l.answered.Load()); idle >= time.Second {
		average >>= min(uint64(idle/time.Second), 62)
	}
	return (l.inflight.Load() + 1) * max(1, average)
}
