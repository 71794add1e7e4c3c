package metrics

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	replaySlot  = 10 * time.Second // samples are at multiples of it
	replayEvery = 30 * time.Second // rules are evaluated at multiples of it
)

// scenario is what random instances tell over time, as Prometheus scrapes it and as a window reads it.
type scenario struct {
	table  Table
	rnd    *rand.Rand
	hosts  int
	series []*replaySeries
	frames []frame // one a slot
	groups []*replayGroup
}

// replaySeries is a series with a sample, a stale marker or nothing at each slot.
type replaySeries struct {
	Name   string
	Labels map[string]string
	Values []replayValue
}

// replayValue is NaN where there is no sample.
type replayValue struct {
	Value float64
	Stale bool
	None  bool // in exported ones
}

// replayGroup is series that appear and vanish together: those of one scope of one metric.
type replayGroup struct {
	counted bool
	fixed   bool // never vanishes
	names   []replaySeries
	// move returns the numbers after so many seconds.
	move func(numbers []float64, seconds, now float64)
	// points are what the numbers are to the evaluator.
	points func(numbers []float64) map[string][]float64
	scope  string
}

// replayHost is an instance.
type replayHost struct {
	name           string
	period, phase  int
	up             bool
	until          int // slot at which its state changes
	gap            bool
	started        int64 // milliseconds
	last           *reading
	lastSlot       int
	groups         []*replayGroup
	numbers        [][]float64
	present, known []bool // now, and ever in this life
	series         [][]*replaySeries
}

func newScenario(table Table, seed uint64, slots int) *scenario {
	s := &scenario{table: table, rnd: rand.New(rand.NewPCG(seed, 7))}
	s.hosts = 1 + s.rnd.IntN(3)
	for i := range s.hosts {
		s.groups = nil
		s.describe()
		h := &replayHost{name: string(rune('a' + i)), period: 1 + s.rnd.IntN(3), up: s.rnd.IntN(4) > 0, groups: s.groups, lastSlot: -1}
		h.phase = s.rnd.IntN(h.period)
		h.started = -int64(time.Hour / time.Millisecond)
		h.until = s.span()
		for _, g := range h.groups {
			h.numbers = append(h.numbers, make([]float64, len(g.names)))
			if g.counted && s.rnd.IntN(2) == 0 {
				for j := range g.names {
					h.numbers[len(h.numbers)-1][j] = 1e4
				}
			}
			h.present = append(h.present, g.fixed || s.rnd.IntN(4) > 0)
			h.known = append(h.known, h.present[len(h.present)-1])
			var list []*replaySeries
			for _, n := range g.names {
				x := &replaySeries{n.Name, map[string]string{"instance": h.name}, make([]replayValue, slots)}
				for k, v := range n.Labels {
					x.Labels[k] = v
				}
				for t := range x.Values {
					x.Values[t].Value = math.NaN()
				}
				list = append(list, x)
			}
			s.series = append(s.series, list...)
			h.series = append(h.series, list)
		}
		for slot := range slots {
			if i == 0 {
				s.frames = append(s.frames, frame{at: time.Unix(0, 0).Add(time.Duration(slot) * replaySlot), readings: map[string]*reading{}})
			}
			s.live(h, slot)
		}
	}
	return s
}

// span is for how many slots an instance stays as it is: up for long, else briefly.
func (s *scenario) span() int { return 3 + s.rnd.IntN(200) }

// live is one slot of an instance's life.
func (s *scenario) live(h *replayHost, slot int) {
	fresh := false
	if slot >= h.until {
		switch {
		case h.gap: // a gap ends, perhaps with a restart that nobody saw go
			h.gap = false
			if slot-h.lastSlot >= 2 && s.rnd.IntN(3) == 0 {
				h.restart(slot, 1)
				fresh = true
			}
			h.until = slot + s.span()
		case h.up && s.rnd.IntN(2) == 0:
			h.gap = true
			h.until = slot + 1 + s.rnd.IntN(50)
		case h.up:
			h.up = false
			for g, present := range h.present {
				if present && h.last != nil {
					h.mark(g, slot, replayValue{Value: math.NaN(), Stale: true})
				}
			}
			h.until = slot + 3 + s.rnd.IntN(60)
		default:
			h.up = true
			h.until = slot + s.span()
			if h.last != nil && s.rnd.IntN(4) > 0 {
				h.restart(slot, 1+s.rnd.IntN(2))
			} else { // the same life goes on: what has been counted is still there
				copy(h.present, h.known)
			}
			fresh = true
		}
	}
	if !h.up {
		return
	}
	if h.gap || slot%h.period != h.phase && !fresh {
		if h.last != nil {
			s.frames[slot].readings[h.name] = h.last
		}
		return
	}
	h.scrape(s, slot, fresh || h.last == nil)
}

// restart begins a life some slots ago, with all counters at zero.
func (h *replayHost) restart(slot, ago int) {
	h.started = int64(slot-ago) * replaySlot.Milliseconds()
	for g, group := range h.groups {
		if group.counted {
			clear(h.numbers[g])
		}
		h.known[g] = h.present[g]
		if h.present[g] && h.zeroes(g) {
			h.mark(g, slot-ago, replayValue{})
		}
	}
}

// zeroes says whether the group begins at zero for the evaluator.
func (h *replayHost) zeroes(g int) bool { return h.groups[g].counted && !h.groups[g].fixed }

func (h *replayHost) mark(g, slot int, v replayValue) {
	for _, x := range h.series[g] {
		x.Values[slot] = v
	}
}

func (h *replayHost) scrape(s *scenario, slot int, steady bool) {
	at := int64(slot) * replaySlot.Milliseconds()
	r := &reading{Version: snapshotVersion, Started: h.started, At: at, Points: points{}}
	seconds := float64(slot-max(h.lastSlot, 0)) * replaySlot.Seconds()
	for g, group := range h.groups {
		if !steady && !group.fixed && s.rnd.IntN(60) == 0 {
			h.present[g] = !h.present[g]
			if !h.present[g] {
				h.mark(g, slot, replayValue{Value: math.NaN(), Stale: true})
			} else if !h.known[g] {
				h.known[g] = true
				if h.zeroes(g) {
					h.mark(g, h.lastSlot, replayValue{}) // it appeared since the last scrape, at zero
				}
			}
		}
		if group.counted && s.rnd.IntN(100) == 0 {
			clear(h.numbers[g]) // a reset
		}
		group.move(h.numbers[g], seconds, float64(at)/1000)
		if !h.present[g] {
			continue
		}
		for i, x := range h.series[g] {
			x.Values[slot] = replayValue{Value: h.numbers[g][i]}
		}
		for id, numbers := range group.points(h.numbers[g]) {
			copy(r.Points.at(id, group.scope, len(numbers)), numbers)
		}
	}
	h.last, h.lastSlot = r, slot
	s.frames[slot].readings[h.name] = r
}

// text is promtool's notation of the values.
func (x *replaySeries) text() string {
	var words []string
	for i := 0; i < len(x.Values); {
		n := 1
		for i+n < len(x.Values) && x.Values[i+n].word() == x.Values[i].word() {
			n++
		}
		switch word := x.Values[i].word(); {
		case word == "_" && n > 1:
			words = append(words, "_x"+strconv.Itoa(n))
		default:
			words = append(words, slices.Repeat([]string{word}, n)...)
		}
		i += n
	}
	return strings.Join(words, " ")
}

func (v replayValue) word() string {
	switch {
	case v.Stale:
		return "stale"
	case math.IsNaN(v.Value):
		return "_"
	}
	return strconv.FormatFloat(v.Value, 'f', -1, 64)
}

func (x *replaySeries) selector() string {
	var labels []string
	for k, v := range x.Labels {
		labels = append(labels, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(labels)
	return x.Name + "{" + strings.Join(labels, ",") + "}"
}
