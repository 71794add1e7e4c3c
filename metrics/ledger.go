package metrics

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// ledger keeps what resources did over the last hours, in steps of a tenth of the window. It is safe for concurrent
// use.
type ledger struct {
	mu sync.Mutex
	timeline
	rates   [keptSteps][2]mean
	uses    map[string]*[keptSteps]use
	queues  map[string]*[keptSteps]queueStep
	held    [keptSteps]mean // the part of CPU periods in which the control group was held back, of the instance that was so most
	dropped bool
	leader  map[string]string // by resource, the instance that used most of its own at the last tick
	changed int               // counts additions
}

// maxResources bounds the memory of one reach: 40 rings of 360 uses, and as many of queues' loads, are 1 MB.
const maxResources = 40

// mean is a running one.
type mean struct {
	v float32
	n float32
}

func (m *mean) add(v float64) {
	if v < 0 {
		return // unknown
	}
	m.n++
	m.v += (float32(v) - m.v) / m.n
}

// use is a resource's mean in one step: what usage tells of all instances together, and the utilization of the one that
// used most of its own. Unknown is -1.
type use struct {
	v [busiest + 1]float32
	n float32
}

// busiest follows usage's numbers.
const busiest = failing + 1

func (u *use) add(now [busiest + 1]float64) {
	u.n++
	for i, v := range now {
		switch {
		case v < 0:
			u.v[i] = unknown
		case u.n == 1 || u.v[i] < 0:
			u.v[i] = float32(v)
		default:
			u.v[i] += (float32(v) - u.v[i]) / u.n
		}
	}
}

func newLedger(interval, window time.Duration) *ledger {
	return &ledger{
		timeline: timeline{step: max(interval, window/10, time.Millisecond)},
		uses:     map[string]*[keptSteps]use{}, leader: map[string]string{}, queues: map[string]*[keptSteps]queueStep{},
	}
}

// add takes what instances tell, by their names.
func (l *ledger) add(now time.Time, all map[string]*vitals) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed++
	l.advance(now, func(i int) {
		l.rates[i] = [2]mean{}
		for _, ring := range l.uses {
			ring[i] = use{}
		}
		for _, ring := range l.queues {
			ring[i] = queueStep{}
		}
		l.held[i] = mean{}
	})
	for kind := range l.rates[l.head] {
		sum, known := 0.0, false
		for _, v := range all {
			if v.Rates[kind] >= 0 {
				sum, known = sum+v.Rates[kind], true
			}
		}
		if known {
			l.rates[l.head][kind].add(sum)
		}
	}
	totals := map[string][busiest + 1]float64{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if v := all[name]; v.Rates[requestRate] >= 0 && v.Rates[jobRate] >= 0 { // use and throughput must be of the same
			for key, u := range v.Usage {
				l.fold(totals, name, key, u)
			}
		}
	}
	for key, total := range totals {
		if ring := l.ring(key); ring != nil {
			ring[l.head].add(total)
		}
	}
	l.addQueues(all)
	most := float64(unknown)
	for _, v := range all {
		if v.Held != nil {
			most = max(most, *v.Held)
		}
	}
	l.held[l.head].add(most)
}

// heldBack is the mean of the last steps, NaN where nothing is known.
func (l *ledger) heldBack(steps int) float64 {
	return l.lately(steps, func(i int) mean { return l.held[i] })
}

// lately averages the last steps in which something is known.
func (l *ledger) lately(steps int, of func(i int) mean) float64 {
	var m mean
	for n := range min(steps, l.steps) {
		if r := of(l.back(n)); r.n > 0 {
			m.add(float64(r.v))
		}
	}
	if m.n == 0 {
		return math.NaN()
	}
	return float64(m.v)
}

// fold adds one instance's use to the total: what they share is the same for all, so that the largest counts.
func (l *ledger) fold(totals map[string][busiest + 1]float64, instance, key string, u usage) {
	kind, _ := splitKey(key)
	row := kindOf(kind)
	if row == nil {
		return // another version's
	}
	total, seen := totals[key]
	if !seen {
		total[busiest] = unknown
	}
	for i, v := range u {
		switch {
		case !seen:
			total[i] = v
		case row.shared || i == waiting && kind == resourceWorkers: // all see the same jobs wait
			total[i] = max(total[i], v)
		case v < 0 || total[i] < 0:
			total[i] = unknown // a sum with an unknown part
		default:
			total[i] += v
		}
	}
	if u[limit] > 0 && u[used] >= 0 {
		if ratio := u[used] / u[limit]; ratio > total[busiest] {
			total[busiest], l.leader[key] = ratio, instance
		}
	}
	totals[key] = total
}

func (l *ledger) ring(key string) *[keptSteps]use {
	if ring := l.uses[key]; ring != nil {
		return ring
	}
	if len(l.uses) >= maxResources {
		maps.DeleteFunc(l.uses, func(_ string, ring *[keptSteps]use) bool {
			for i := range ring { // Go 1.26.8, instrumented for fuzzing, cannot compile slices.ContainsFunc of ring[:]
				if ring[i].n > 0 {
					return false
				}
			}
			return true
		})
	}
	if len(l.uses) >= maxResources {
		l.dropped = true
		return nil
	}
	ring := new([keptSteps]use)
	l.uses[key] = ring
	return ring
}

// driver is the rate that the use is compared with: of requests, or of jobs where no requests are served.
func (l *ledger) driver() int {
	requests, jobs := 0, 0
	for _, r := range l.rates {
		if r[requestRate].v > 0 {
			requests++
		}
		if r[jobRate].v > 0 {
			jobs++
		}
	}
	if requests == 0 && jobs > 0 {
		return jobRate
	}
	return requestRate
}

// loads pairs a resource's use with the throughput of the same steps, the oldest first. The newest step is left out
// while it is not full.
func (l *ledger) loads(key string, driver int) []load {
	ring := l.uses[key]
	return l.pairs(driver, func(i int) (float64, bool) { return float64(ring[i].v[used]), ring[i].n > 0 && ring[i].v[used] >= 0 })
}

func (l *ledger) pairs(driver int, used func(i int) (v float64, known bool)) (out []load) {
	for n := l.steps - 1; n >= 1; n-- {
		i := l.back(n)
		if v, known := used(i); known && l.rates[i][driver].n > 0 {
			out = append(out, load{float64(l.rates[i][driver].v), v})
		}
	}
	return out
}

// samples are a resource's utilizations over time, of its busiest instance.
func (l *ledger) samples(key string) []sample {
	var out []sample
	ring := l.uses[key]
	for n := l.steps - 1; n >= 0; n-- {
		if u := ring[l.back(n)]; u.n > 0 && u.v[busiest] >= 0 {
			out = append(out, sample{float64(l.steps-1-n) * l.step.Seconds(), float64(u.v[busiest])})
		}
	}
	return out
}

// recent averages the last steps, as many as a window has, of what is known.
func (l *ledger) recent(key string, steps int) use {
	ring := l.uses[key]
	var means [busiest + 1]mean
	var out use
	for n := range min(steps, l.steps) {
		u := ring[l.back(n)]
		out.n += u.n
		for i, v := range u.v {
			if u.n > 0 {
				means[i].add(float64(v))
			}
		}
	}
	for i, m := range means {
		out.v[i] = unknown
		if m.n > 0 {
			out.v[i] = m.v
		}
	}
	return out
}

// throughput is the mean of the last steps, NaN where there is none.
func (l *ledger) throughput(driver, steps int) float64 {
	return l.lately(steps, func(i int) mean { return l.rates[i][driver] })
}

func kindOf(id string) *resourceKind {
	for i := range resourceKinds {
		if resourceKinds[i].id == id {
			return &resourceKinds[i]
		}
	}
	return nil
}
