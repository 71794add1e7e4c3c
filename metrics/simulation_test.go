package metrics

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// closed is a closed system: customers think, visit every resource in turn, and think again. Others use the resources,
// too, whatever the throughput.
type closed struct {
	random    *rand.Rand
	think     float64
	resources []station
	events    moments
	now       float64
	thinking  int // customers that are to leave when they next think, below zero
	done      int
}

// station is a resource of several servers and one queue.
type station struct {
	servers int
	demand  float64 // mean seconds of a server for one visit
	others  float64 // mean of servers that others keep busy
	aside   float64 // mean seconds of a server for one visit of others
	busy    int
	queue   []visit
	area    float64 // busy servers × time
	since   float64
}

// visit is a customer's, or another's.
type visit struct{ other bool }

type moment struct {
	at      float64
	station int // -1: somebody has thought
	what    visit
	arrival bool // of others
}

type moments []moment

func (m moments) Len() int           { return len(m) }
func (m moments) Less(i, j int) bool { return m[i].at < m[j].at }
func (m moments) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *moments) Push(x any)        { *m = append(*m, x.(moment)) }
func (m *moments) Pop() any {
	old := *m
	last := old[len(old)-1]
	*m = old[:len(old)-1]
	return last
}

func (s *closed) after(mean float64, m moment) {
	m.at = s.now + mean*s.random.ExpFloat64()
	heap.Push(&s.events, m)
}

func (s *closed) arrive(i int, v visit) {
	st := &s.resources[i]
	if st.busy == st.servers {
		st.queue = append(st.queue, v)
		return
	}
	st.account(s.now)
	st.busy++
	s.serve(i, v)
}

func (s *closed) serve(i int, v visit) {
	mean := s.resources[i].demand
	if v.other {
		mean = s.resources[i].aside
	}
	s.after(mean, moment{station: i, what: v})
}

func (st *station) account(now float64) {
	st.area += float64(st.busy) * (now - st.since)
	st.since = now
}

// customers makes there be so many.
func (s *closed) customers(n int, have *int) {
	for ; *have < n; *have++ {
		if s.thinking > 0 {
			s.thinking--
			continue
		}
		s.after(s.think, moment{station: -1})
	}
	for ; *have > n; *have-- {
		s.thinking++ // the next to think leaves
	}
}

func (s *closed) run(until float64) {
	for len(s.events) > 0 && s.events[0].at <= until {
		m := heap.Pop(&s.events).(moment)
		s.now = m.at
		switch {
		case m.station < 0 && s.thinking > 0:
			s.thinking--
		case m.station < 0:
			s.arrive(0, visit{})
		case m.arrival:
			st := &s.resources[m.station]
			s.after(st.aside/st.others, moment{station: m.station, arrival: true})
			s.arrive(m.station, visit{other: true})
		default:
			s.leave(m.station, m.what)
		}
	}
	s.now = until
}

func (s *closed) leave(i int, v visit) {
	st := &s.resources[i]
	if len(st.queue) > 0 {
		next := st.queue[0]
		st.queue = st.queue[1:]
		s.serve(i, next)
	} else {
		st.account(s.now)
		st.busy--
	}
	switch {
	case v.other:
	case i+1 < len(s.resources):
		s.arrive(i+1, visit{})
	default:
		s.done++
		s.after(s.think, moment{station: -1})
	}
}

// knownSystem is a random system with the throughput at which each resource is used up. The second is at least 15 % above
// the first: of two that are as good as equal, neither is the wrong answer.
func knownSystem(random *rand.Rand) (s *closed, ceilings []float64, first int) {
	for {
		s = &closed{random: random}
		ceilings = ceilings[:0]
		first = 0
		for i := range 3 + random.IntN(3) {
			st := station{servers: 1 + random.IntN(16), others: 0}
			st.demand = float64(st.servers) / (20 + 80*random.Float64())
			st.others = float64(st.servers) * .3 * random.Float64()
			st.aside = st.demand * (.5 + random.Float64())
			s.resources = append(s.resources, st)
			ceilings = append(ceilings, (float64(st.servers)-st.others)/st.demand)
			if ceilings[i] < ceilings[first] {
				first = i
			}
		}
		apart := true
		for i, c := range ceilings {
			apart = apart && (i == first || c >= 1.15*ceilings[first])
		}
		if apart {
			return s, ceilings, first
		}
	}
}

// observe drives the system with a load that varies between a fifth and most of its ceiling, and keeps what an
// instance would tell in a ledger.
func (s *closed) observe(ceiling, most float64) *ledger {
	const (
		interval = 5.
		steps    = 26
		ticks    = 6 // of interval in a step
	)
	s.think = 1
	for i := range s.resources {
		s.think += 2 * s.resources[i].demand
		if st := &s.resources[i]; st.others > 0 {
			s.after(st.aside/st.others, moment{station: i, arrival: true})
		}
	}
	residence := s.think
	for _, st := range s.resources {
		residence += st.demand
	}
	l := newLedger(5*time.Second, 5*time.Minute)
	kinds := []string{resourceCPU, resourceDBPool, resourceWorkers, resourceHTTP, resourceRedisPool}
	have := 0
	for tick := range steps * ticks {
		if tick%ticks == 0 {
			part := .2 + (most-.2)*s.random.Float64()
			s.customers(int(part*ceiling*residence), &have)
		}
		for i := range s.resources {
			s.resources[i].account(s.now)
			s.resources[i].area = 0
		}
		done := s.done
		s.run(interval * float64(tick+1))
		v := &vitals{Rates: [2]float64{float64(s.done-done) / interval, 0}, Usage: map[string]usage{}}
		for i := range s.resources {
			st := &s.resources[i]
			st.account(s.now)
			v.Usage[resourceKey(kinds[i], "")] = usage{st.area / interval, float64(st.servers), float64(len(st.queue)), unknown}
		}
		l.add(epoch.Add(time.Duration(interval*float64(tick+1))*time.Second), map[string]*vitals{"a": v})
	}
	return l
}

// Two hundred closed systems, observed at no more than 60 % of what they can do: the resource that limits must come
// first, with the throughput at which it does.
func TestBottlenecksOfKnownSystems(t *testing.T) {
	const seed, systems = 20260103, 200
	random := rand.New(rand.NewPCG(seed, 3))
	right, within, silent := 0, 0, 0
	worst := 0.0
	for n := range systems {
		s, ceilings, first := knownSystem(random)
		b := s.observe(ceilings[first], .6).bottlenecks(5*time.Minute, About{})
		kinds := []string{resourceCPU, resourceDBPool, resourceWorkers, resourceHTTP, resourceRedisPool}
		top := b.Resources[0]
		if top.Ceiling == nil {
			silent++
			t.Logf("system %d: %s: %s", n, top.ID, top.Status)
			continue
		}
		if top.ID == kinds[first] {
			right++
		}
		off := math.Abs(*top.Ceiling/ceilings[first] - 1)
		worst = math.Max(worst, off)
		if off <= .1 {
			within++
		}
		if off > .1 || top.ID != kinds[first] {
			t.Logf("system %d: %s at %.1f/s, right is %s at %.1f/s", n, top.ID, *top.Ceiling, kinds[first], ceilings[first])
		}
	}
	result := fmt.Sprintf("seed %d: of %d systems %d have the right resource first, %d ceilings are within 10 %%, %d without one; the worst is off by %.1f %%", seed, systems, right, within, silent, 100*worst)
	t.Log(result)
	if right < systems*95/100 || within < systems*95/100 {
		t.Error(result)
	}
}

// A system that is always as busy shows nothing of what it could do.
func TestBottlenecksOfASteadySystem(t *testing.T) {
	random := rand.New(rand.NewPCG(20260104, 4))
	for range 5 {
		s, ceilings, first := knownSystem(random)
		l := s.observe(ceilings[first], .2)
		for _, r := range l.bottlenecks(5*time.Minute, About{}).Resources {
			if r.Ceiling != nil || len(r.Status) < len(notEnough) || r.Status[:len(notEnough)] != notEnough && r.Status[:3] != "its" {
				t.Errorf("%s: a ceiling of %v, %q", r.ID, orInf(r.Ceiling), r.Status)
			}
		}
	}
}
