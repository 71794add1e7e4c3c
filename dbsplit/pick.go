package dbsplit

import (
	"math/bits"
	"time"
)

const (
	// slowStart is how long a replica that has come back takes to get its whole share: its caches are cold.
	slowStart = 5 * time.Second
	// spill is how many times busier a replica in this process's zone must be before one elsewhere takes its reads.
	spill = 4
)

// pick takes two members of set at random, by their weights, and returns the one with less load: nearly as good as
// looking at all of them, and many callers with the same snapshot do not all run to the same node. Members in this
// process's zone come first.
func pick(s *snapshot, set uint64, d *demand) int {
	if set&(set-1) == 0 {
		return bits.TrailingZeros64(set)
	}
	near := set & s.near
	if near == 0 || near == set {
		return lighter(s, set, d)
	}
	here := lighter(s, near, d)
	there := draw(s, set&^near, d.random>>32)
	if s.views[here].cost(d.now) > spill*s.views[there].cost(d.now) {
		return there
	}
	return here
}

func lighter(s *snapshot, set uint64, d *demand) int {
	if set&(set-1) == 0 {
		return bits.TrailingZeros64(set)
	}
	first := draw(s, set, d.random&0xffffffff)
	second := draw(s, set&^(1<<first), d.random>>32)
	// Like answers share like reads: only a clear difference, of a third, is followed.
	if s.views[second].cost(d.now) < s.views[first].cost(d.now)/4*3 {
		return second
	}
	return first
}

// draw returns a member of set by chance, in proportion to the members' shares. random has 32 bits.
func draw(s *snapshot, set uint64, random uint64) int {
	if !s.uneven {
		k := random * uint64(bits.OnesCount64(set)) >> 32
		for ; k > 0; k-- {
			set &= set - 1
		}
		return bits.TrailingZeros64(set)
	}
	var sum int64
	for rest := set; rest != 0; rest &= rest - 1 {
		sum += s.views[bits.TrailingZeros64(rest)].share
	}
	at := int64(random * uint64(sum) >> 32)
	for ; ; set &= set - 1 {
		i := bits.TrailingZeros64(set)
		if at -= s.views[i].share; at < 0 || set&(set-1) == 0 {
			return i
		}
	}
}

// wholeShare is the share of a weight of one, so that slow starts have steps.
const wholeShare = 1000

// share is what a node of that weight gets since it came back; back is 0 when it was there from the start.
func share(weight int, back, now time.Duration) int64 {
	whole := int64(weight) * wholeShare
	if since := now - back; back != 0 && since < slowStart {
		whole = whole * int64(max(0, since)) / int64(slowStart)
	}
	return max(1, whole)
}

// cost is lower for a better choice. A node with twice the share may have twice the reads under way.
func (v *view) cost(now time.Duration) int64 {
	const one, most = 1000, 1e8 // bounds keep the product within 64 bits
	busy := int64(one)
	if inflight := v.load.inflight.Load(); inflight != 0 {
		busy += inflight * one * defaultWeight * wholeShare / v.share
	}
	return min(v.load.average(now), int64(time.Minute)) * min(busy, most) / one
}
