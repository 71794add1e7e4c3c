package history

import (
	"strconv"
	"sync"
)

// Checker judges histories of counters. Every counter begins at zero.
type Checker struct {
	mu       sync.Mutex
	sessions []*Session
}

// New returns a Checker.
func New() *Checker { return new(Checker) }

// Session begins the history of one session. Sessions may be used at the same time, each by one goroutine.
func (c *Checker) Session(name string) *Session {
	s := &Session{name: name, counters: map[int64]*counter{}, tallies: map[string]*Tally{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions = append(c.sessions, s)
	return s
}

// Session is what one client did, one operation after the other.
type Session struct {
	name     string
	counters map[int64]*counter
	tallies  map[string]*Tally
	last     Op
	found    found
}

// counter is what a session knows of one counter.
type counter struct {
	wrote, saw   Op    // the latest of each, zero Ops before
	acknowledged int64 // writes
	unknown      int64
	extra        int64 // increments that nothing explains, reported already
	fresh        bool  // written since it was read last
}

// most is the highest value that the session's own writes can explain.
func (k *counter) most() int64 { return k.acknowledged + k.unknown + k.extra }

// owned reports whether this session has tried to write the counter, so that nobody else does.
func (k *counter) owned() bool { return k.acknowledged+k.unknown > 0 }

// Add appends an operation to the session's history and judges it. Operations of one session follow each other; those of
// one request, whose order is known while their times are not, may have the same times.
func (s *Session) Add(op Op) {
	k := s.counters[op.Key]
	if k == nil {
		k = new(counter)
		s.counters[op.Key] = k
	}
	t := s.tallies[op.Via]
	if t == nil {
		t = &Tally{Nodes: map[string]int{}}
		s.tallies[op.Via] = t
	}
	together := op.Start == s.last.Start && op.End == s.last.End
	if op.End < op.Start || op.Start < s.last.End && !together {
		s.breaks(Malformed, s.last, op)
	}
	s.last = op
	switch {
	case op.Kind == Write:
		s.write(k, t, op)
	case op.Outcome == OK:
		s.read(k, t, op)
	default:
		t.FailedReads++
	}
}

func (s *Session) write(k *counter, t *Tally, op Op) {
	switch op.Outcome {
	case Unknown:
		t.UnknownWrites++
		k.unknown++
		return
	case Failed:
		t.FailedWrites++
		return
	}
	t.Writes++
	k.acknowledged++
	switch {
	case op.Value <= k.wrote.Value:
		s.breaks(MonotonicWrites, k.wrote, op)
	case op.Value <= k.saw.Value:
		s.breaks(WritesFollowReads, k.saw, op)
	case op.Value > k.most():
		s.breaks(DoubleApply, k.wrote, op)
		k.extra = op.Value - k.acknowledged - k.unknown
	}
	k.wrote = op // even when it is lower: what is lost is reported once, not with every read that follows
	k.fresh = true
	if k.saw.Value > op.Value {
		k.saw = Op{}
	}
}

func (s *Session) read(k *counter, t *Tally, op Op) {
	t.Reads++
	t.Nodes[op.Node]++
	if k.acknowledged > 0 {
		t.Covered++
		if k.fresh {
			t.Pairs++
		}
		k.fresh = false
	}
	if k.saw != (Op{}) {
		t.Again++
	}
	if op.Value < k.wrote.Value {
		s.breaks(ReadYourWrites, k.wrote, op)
	}
	if op.Value < k.saw.Value {
		s.breaks(MonotonicReads, k.saw, op)
	}
	if k.owned() && op.Value > k.most() {
		s.breaks(DoubleApply, k.wrote, op)
		k.extra = op.Value - k.acknowledged - k.unknown
	}
	if !op.Aside && op.Value >= k.saw.Value {
		k.saw = op
	}
}

func (s *Session) breaks(p Promise, before, after Op) {
	s.tallies[after.Via].Broken++
	s.found.add(Violation{Promise: p, Session: s.name, Key: strconv.FormatInt(after.Key, 10), Before: before, After: after})
}
