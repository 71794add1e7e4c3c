package history

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Tally counts what was checked, for one way of carrying the token.
type Tally struct {
	Writes, UnknownWrites, FailedWrites int
	Reads, FailedReads                  int
	Pairs                               int            // writes that the next read of their counter was checked against
	Covered                             int            // reads that were checked against a write
	Again                               int            // reads that were checked against a read
	Broken                              int            // promises, by these reads and writes
	Nodes                               map[string]int // reads, by who answered
}

func (t *Tally) add(other *Tally) {
	t.Writes += other.Writes
	t.UnknownWrites += other.UnknownWrites
	t.FailedWrites += other.FailedWrites
	t.Reads += other.Reads
	t.FailedReads += other.FailedReads
	t.Pairs += other.Pairs
	t.Covered += other.Covered
	t.Again += other.Again
	t.Broken += other.Broken
	for node, n := range other.Nodes {
		t.Nodes[node] += n
	}
}

// Share is the share of reads, 0 to 1, that were answered by nodes of which is says so.
func (t *Tally) Share(is func(node string) bool) float64 {
	if t.Reads == 0 {
		return 0
	}
	n := 0
	for node, reads := range t.Nodes {
		if is(node) {
			n += reads
		}
	}
	return float64(n) / float64(t.Reads)
}

// Report is what a Checker found.
type Report struct {
	Total   Tally
	Tallies map[string]*Tally // by Op.Via
	// Violations holds the shortest violation of each promise that was broken.
	Violations []Violation
	counts     [promises]int
}

// Count is how often a promise was broken.
func (r *Report) Count(p Promise) int { return r.counts[p] }

// Broken is how often any promise was broken.
func (r *Report) Broken() (n int) {
	for _, count := range r.counts {
		n += count
	}
	return n
}

// String is a line for each way of carrying the token, and one for each broken promise.
func (r *Report) String() string {
	var b strings.Builder
	line := func(name string, t *Tally) {
		fmt.Fprintf(&b, "%-8s %8d pairs, %d violations; %d writes, %d reads (%d after a write, %d after a read), unknown %d, failed %d + %d:",
			name, t.Pairs, t.Broken, t.Writes, t.Reads, t.Covered, t.Again, t.UnknownWrites, t.FailedWrites, t.FailedReads)
		for _, node := range slices.Sorted(maps.Keys(t.Nodes)) {
			fmt.Fprintf(&b, " %s %.1f %%", node, 100*float64(t.Nodes[node])/float64(max(t.Reads, 1)))
		}
		b.WriteByte('\n')
	}
	for _, via := range slices.Sorted(maps.Keys(r.Tallies)) {
		line(via, r.Tallies[via])
	}
	line("total", &r.Total)
	fmt.Fprintf(&b, "%d violations", r.Broken())
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "\n%d × %v", r.counts[v.Promise], v)
	}
	return b.String()
}

// Report ends the histories; no session may be used any more. final holds the counters' values on the server that has
// the last word; nil leaves them unchecked, and a missing counter is a lost one.
func (c *Checker) Report(final map[int64]int64) *Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &Report{Total: Tally{Nodes: map[string]int{}}, Tallies: map[string]*Tally{}}
	var all found
	writers := map[int64]*Session{}
	for _, s := range c.sessions {
		all.merge(&s.found)
		for via, t := range s.tallies {
			if r.Tallies[via] == nil {
				r.Tallies[via] = &Tally{Nodes: map[string]int{}}
			}
			r.Tallies[via].add(t)
			r.Total.add(t)
		}
		for key, k := range s.counters {
			if !k.owned() {
				continue
			}
			if other := writers[key]; other != nil {
				all.add(violation(Malformed, s, key, other.counters[key].wrote, k.wrote, "the counter has two writers: "+other.name+" too"))
			}
			writers[key] = s
			if value, ok := final[key]; final != nil {
				s.end(&all, key, k, value, ok)
			}
		}
	}
	for _, s := range c.sessions {
		for key, k := range s.counters {
			s.against(&all, key, k, writers[key], final)
		}
	}
	r.Violations, r.counts = all.list(), all.counts
	return r
}

// end judges what became of a session's own counter.
func (s *Session) end(all *found, key int64, k *counter, value int64, ok bool) {
	note := "in the end it is " + strconv.FormatInt(value, 10)
	if !ok {
		note = "in the end it is not there"
	}
	if value < k.wrote.Value {
		all.add(violation(LostUpdate, s, key, k.wrote, Op{}, note))
	}
	if value > k.most() {
		all.add(violation(DoubleApply, s, key, k.wrote, Op{}, fmt.Sprintf("%s, after %d acknowledged writes and %d of unknown outcome", note, k.acknowledged, k.unknown)))
	}
}

// against judges what a session has seen of a counter by what its writer did, and by what became of it.
func (s *Session) against(all *found, key int64, k *counter, writer *Session, final map[int64]int64) {
	if writer != nil && writer != s {
		if most := writer.counters[key].most(); k.saw.Value > most {
			all.add(violation(DoubleApply, s, key, Op{}, k.saw, fmt.Sprintf("its writer can explain %d", most)))
		}
	}
	if value := final[key]; final != nil && k.saw.Value > value && k.saw.Value > k.wrote.Value {
		all.add(violation(LostUpdate, s, key, k.saw, Op{}, "in the end it is "+strconv.FormatInt(value, 10)))
	}
}

func violation(p Promise, s *Session, key int64, before, after Op, note string) Violation {
	return Violation{Promise: p, Session: s.name, Key: strconv.FormatInt(key, 10), Before: before, After: after, Note: note}
}
