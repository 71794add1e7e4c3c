package queue

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// world is a queue with workers that take time to start, in steps of 100 ms of made-up time. It has no randomness.
type world struct {
	rate    func(second float64) float64 // arrivals per second
	run     float64                      // seconds a job takes
	slots   int                          // of a worker
	startup float64                      // seconds
	limit   float64                      // starts per second, 0 is none
	blind   func(second float64) bool    // when nothing can be read
	stuck   func(second float64) string  // what is saturated
	// slow makes jobs slower by the number of jobs that run, as a saturated database does.
	slow func(running float64) float64
}

// policy wants a number of workers.
type policy func(in ScaleInputs) int

// flight is what came of a simulation.
type flight struct {
	reversals int
	changes   int
	peak      int // most workers wanted
	oracle    int // most workers that the formula would have asked for, had it known the rate of the last minute exactly
	steady    int // most workers that the arrivals of a minute keep busy, with the rule's room for bursts and without any backlog
	last      int
	p95       float64 // seconds of waiting
	hours     float64 // of workers
	wanted    []int   // every 5 seconds
}

const (
	simStep = 0.1
	simPoll = 5.0
)

func (w world) fly(initial int, seconds float64, oracle ScaleRule, want policy) flight {
	var f flight
	workers, target := initial, initial
	var starting []float64 // when each starting worker works
	var arrived, ended float64
	var arrivals, departures []float64 // cumulative, each step
	direction := 0
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for step := 0; float64(step)*simStep < seconds; step++ {
		now := float64(step) * simStep
		for len(starting) > 0 && starting[0] <= now {
			starting = starting[1:]
			workers++
		}
		arrived += w.rate(now) * simStep
		running := min(float64(workers*w.slots), arrived-ended)
		run := w.run
		if w.slow != nil {
			run *= w.slow(running)
		}
		done := running / run * simStep
		if w.limit > 0 {
			done = min(done, w.limit*simStep)
		}
		done = min(done, arrived-ended)
		ended += done
		arrivals, departures = append(arrivals, arrived), append(departures, ended)
		f.hours += float64(workers+len(starting)) * simStep / 3600
		if math.Mod(now+simStep/2, simPoll) >= simStep {
			continue
		}
		active := min(float64(workers*w.slots), arrived-ended)
		in := ScaleInputs{
			At: begin.Add(time.Duration(now * float64(time.Second))), Known: w.blind == nil || !w.blind(now),
			Due: int(arrived - ended - active), Active: int(active), Arrived: int64(arrived),
			Workers: workers, Slots: workers * w.slots, MaxStartsPerSecond: w.limit,
		}
		if done > 0 {
			in.Runs, in.RunSeconds = int64(done)+1, run
		}
		if w.stuck != nil {
			in.Bottleneck = w.stuck(now)
		}
		if oracle.Latency > 0 {
			rate, from := 0.0, max(0, step-599)
			for s := from; s <= step; s++ {
				rate += w.rate(float64(s)*simStep) / float64(step-from+1)
			}
			need := ceil((rate/defaultUtilisation + float64(in.Due)/oracle.Latency.Seconds()) * run / float64(w.slots))
			f.oracle = max(f.oracle, need)
			if step >= 599 { // of a whole minute
				f.steady = max(f.steady, int(math.Ceil(rate*w.run/defaultUtilisation/float64(w.slots)-1e-6)))
			}
		}
		n := want(in)
		f.wanted = append(f.wanted, n)
		f.peak, f.last = max(f.peak, n), n
		if n != target {
			f.changes++
			turn := 1
			if n < target {
				turn = -1
			}
			if direction == -turn {
				f.reversals++
			}
			direction = turn
		}
		for target = n; workers+len(starting) < target; {
			starting = append(starting, now+w.startup)
		}
		if over := workers + len(starting) - target; over > 0 {
			cut := min(over, len(starting))
			starting = starting[:len(starting)-cut]
			workers -= over - cut
		}
	}
	f.p95 = waits(arrivals, departures)
	return f
}

// waits is the 95th percentile of the time between the arrival and the end of jobs, first in first out.
func waits(arrivals, departures []float64) float64 {
	var all []float64
	var weights []float64
	at, before, total := 0, 0.0, 0.0
	for i, n := range departures {
		if i > 0 {
			before = departures[i-1]
		}
		if n <= before {
			continue
		}
		for arrivals[at] < n {
			at++
		}
		all, weights = append(all, float64(i-at)*simStep), append(weights, n-before)
		total += n - before
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(math.Copysign(1, all[a]-all[b])) })
	sum := 0.0
	for _, i := range order {
		if sum += weights[i]; sum >= 0.95*total {
			return all[i]
		}
	}
	return 0
}

func byRule(r ScaleRule, initial int, see func(Decision)) policy {
	s := ScaleState{Decided: initial > 0, Workers: initial}
	return func(in ScaleInputs) int {
		var d Decision
		d, s = r.Decide(s, in)
		if see != nil {
			see(d)
		}
		return max(d.Workers, 0)
	}
}

// per200 is the usual scaler without memory: a worker for each 200 waiting jobs.
func per200(least, most int) policy {
	return func(in ScaleInputs) int { return min(max((in.Due+199)/200, least), most) }
}

func (f flight) String() string {
	return fmt.Sprintf("%3d reversals  %3d workers at most  p95 %6.1fs  %6.2f worker-hours", f.reversals, f.peak, f.p95, f.hours)
}

// TestScaleSimulation flies the rules through loads that make scalers swing.
func TestScaleSimulation(t *testing.T) {
	t.Parallel()
	latency := ScaleRule{Queue: "q", Latency: 30 * time.Second, Min: 2, Max: 40}
	depth := ScaleRule{Queue: "q", Above: 1000, Up: 5, Below: 100, Down: 2}
	base := world{run: 0.2, slots: 10, startup: 30}
	sawtooth := base
	sawtooth.rate = func(s float64) float64 { return 300 * math.Mod(s, 60) / 60 }
	wave := base
	wave.rate = func(s float64) float64 { return 150 + 100*math.Sin(2*math.Pi*s/1800) }
	spike := base
	spike.rate = func(s float64) float64 {
		if s >= 600 && s < 610 {
			return 1000
		}
		return 80
	}
	jump := base
	jump.rate = func(s float64) float64 {
		if s >= 600 {
			return 400
		}
		return 80
	}
	steady := base
	steady.rate = func(float64) float64 { return 150 }
	table := []string{""}
	for _, c := range []struct {
		name      string
		world     world
		reversals int
		catchUp   int // workers over the load's own need that work a backlog off: those that came while workers were starting
	}{
		{"60s sawtooth 0 to 300/s", sawtooth, 6, 0}, {"30m wave 50 to 250/s", wave, 6, 0}, {"10s spike of 1000/s on 80/s", spike, 1, 4},
		{"jump from 80/s to 400/s", jump, 1, 1}, {"steady 150/s", steady, 0, 0},
	} {
		ours := c.world.fly(2, 3600, latency, byRule(latency, 2, nil))
		table = append(table,
			fmt.Sprintf("%-28s latency 30s     %v; the exact formula asks for %d, the load alone for %d", c.name, ours, ours.oracle, ours.steady),
			fmt.Sprintf("%-28s runbook's rule  %v", "", c.world.fly(2, 3600, ScaleRule{}, byRule(depth, 2, nil))),
			fmt.Sprintf("%-28s depth/200       %v", "", c.world.fly(2, 3600, ScaleRule{}, per200(2, 40))))
		if ours.reversals > c.reversals {
			t.Errorf("%s: %d reversals in an hour, want at most %d", c.name, ours.reversals, c.reversals)
		}
		if over := ours.peak - ours.oracle; over > max(1, ours.oracle/10) {
			t.Errorf("%s: %d workers at most, the load asks for %d: over by more than a worker and 10 %%", c.name, ours.peak, ours.oracle)
		}
		if over := ours.peak - ours.steady - c.catchUp; over > max(1, ours.steady/10) {
			t.Errorf("%s: %d workers at most, the load alone keeps %d busy and its backlog %d: over by more than a worker and 10 %%", c.name, ours.peak, ours.steady, c.catchUp)
		}
	}
	t.Log(strings.Join(table, "\n"))
}

// TestScaleSimulationHolds flies the latency rule where more workers cannot help, and where nothing can be seen.
func TestScaleSimulationHolds(t *testing.T) {
	t.Parallel()
	rule := ScaleRule{Queue: "q", Latency: 30 * time.Second, Min: 2, Max: 40}
	after600 := func(before, after float64) func(float64) float64 {
		return func(s float64) float64 {
			if s >= 600 {
				return after
			}
			return before
		}
	}
	fly := func(w world) (flight, map[Reason]int) {
		reasons := map[Reason]int{}
		return w.fly(2, 3600, ScaleRule{}, byRule(rule, 2, func(d Decision) { reasons[d.Reason]++ })), reasons
	}

	// 1,000 arrivals a second, and 100 starts allowed: 2 workers of 10 slots run all 20 jobs that may run.
	limited := world{run: 0.2, slots: 10, startup: 30, limit: 100, rate: after600(50, 1000)}
	f, reasons := fly(limited)
	t.Logf("limited:   %v %v", f, reasons)
	if f.peak != 2 || reasons[ReasonLimited] < 500 {
		t.Errorf("a limited queue got %d workers for %v", f.peak, reasons)
	}
	limited.limit = 300 // 60 jobs, which are 6 workers
	if f, reasons = fly(limited); f.peak != 6 || f.reversals != 0 {
		t.Errorf("a queue limited to 300/s got %d workers with %d reversals for %v", f.peak, f.reversals, reasons)
	}

	// A database that does 60 jobs at a time, and each the slower the more there are.
	database := world{run: 0.2, slots: 10, startup: 30, rate: after600(50, 400), slow: func(running float64) float64 { return max(1, running/60) }}
	f, reasons = fly(database)
	t.Logf("database, nobody looks:   %v %v", f, reasons)
	if f.peak < 30 {
		t.Errorf("the simulation shows nothing: %d workers without a look at the database", f.peak)
	}
	busy := 0
	database.rate = after600(50, 400)
	database.slow = func(running float64) float64 { busy = int(running); return max(1, running/60) }
	database.stuck = func(float64) string {
		if busy >= 60 {
			return "database primary"
		}
		return ""
	}
	f, reasons = fly(database)
	t.Logf("database, saturation told: %v %v", f, reasons)
	if f.peak > 16 || reasons[ReasonSaturated] < 100 {
		t.Errorf("%d workers were sent at a saturated database for %v", f.peak, reasons)
	}

	// Nothing can be read for 20 minutes, in which the load goes: the number holds then and for 5 minutes more.
	blind := world{run: 0.2, slots: 10, startup: 30, rate: after600(300, 10), blind: func(s float64) bool { return s > 590 && s < 1800 }}
	f, reasons = fly(blind)
	t.Logf("blind:     %v %v", f, reasons)
	before := f.wanted[590/5]
	for i := 590 / 5; i < 2095/5; i++ {
		if f.wanted[i] != before {
			t.Fatalf("after %ds %d workers were wanted, and %d before nothing could be read", i*5, f.wanted[i], before)
		}
	}
	if f.last != 2 || reasons[ReasonUnknown] < 240 {
		t.Errorf("in the end %d workers, %v", f.last, reasons)
	}
}
