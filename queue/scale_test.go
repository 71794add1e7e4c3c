package queue

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var leadRule = ScaleRule{Queue: "lead-processing", Above: 1000, Up: 5, Below: 100, Down: 2}

func wantedSoFar(n int) ScaleState { return ScaleState{Decided: n >= 0, Workers: max(n, 0)} }

func TestDecideByDepth(t *testing.T) {
	t.Parallel()
	known := func(n int) ScaleInputs { return ScaleInputs{Due: n, Known: true} }
	slow := func(n int, perSecond float64) ScaleInputs { // jobs of 2s, 10 at a time in a worker
		return ScaleInputs{Due: n, Known: true, Runs: 1, RunSeconds: 2, MaxStartsPerSecond: perSecond}
	}
	for _, c := range []struct {
		current int
		in      ScaleInputs
		want    int
		reason  Reason
	}{
		{-1, known(1001), 5, ReasonAbove},
		{-1, known(1000), -1, ReasonBetween},
		{-1, known(100), -1, ReasonBetween},
		{-1, known(99), 2, ReasonBelow},
		{2, known(1001), 5, ReasonAbove},
		{5, known(1000), 5, ReasonBetween},
		{5, known(100), 5, ReasonBetween},
		{5, known(99), 2, ReasonBelow},
		{2, known(0), 2, ReasonBelow},
		{8, known(1001), 5, ReasonAbove},
		{5, ScaleInputs{}, 5, ReasonUnknown},
		{-1, ScaleInputs{}, -1, ReasonUnknown},
		{5, ScaleInputs{Due: 5000}, 5, ReasonUnknown},
		{2, ScaleInputs{Due: 5000, Known: true, Bottleneck: "database"}, 2, ReasonSaturated},
		{5, ScaleInputs{Due: 5, Known: true, Bottleneck: "database"}, 2, ReasonBelow},
		{2, ScaleInputs{Due: 5000, Known: true, Paused: true}, 2, ReasonPaused},
		{2, slow(5000, 15), 3, ReasonLimited},                                           // 30 of them run at once, at most
		{2, slow(5000, 5), 2, ReasonLimited},                                            // 10
		{2, slow(5000, 1000), 5, ReasonAbove},                                           // 2000
		{2, slow(5000, 25), 5, ReasonAbove},                                             // 50: as many as are asked for
		{2, ScaleInputs{Due: 5000, Known: true, MaxStartsPerSecond: 5}, 5, ReasonAbove}, // nobody knows how long they take
		{5, slow(5000, 5), 5, ReasonAbove},                                              // what is there stays
		{-1, slow(5000, 0.01), 2, ReasonLimited},                                        // but Down is the least
	} {
		d, s := leadRule.Decide(wantedSoFar(c.current), c.in)
		if d.Workers != c.want || d.Reason != c.reason || d.Previous != c.current || d.Changed() != (c.want != c.current) || d.Stages.Stepped != c.want {
			t.Errorf("Decide(%d, %+v) = %d %s of %d, stages %+v, want %d %s", c.current, c.in, d.Workers, d.Reason, d.Previous, d.Stages, c.want, c.reason)
		}
		if s.Decided != (c.want >= 0) || s.Decided && s.Workers != c.want {
			t.Errorf("after Decide(%d, %+v) the state is %+v", c.current, c.in, s)
		}
	}
}

func TestDecideToHaveNoWorkers(t *testing.T) {
	t.Parallel()
	rule := leadRule
	rule.Down = 0
	d, s := rule.Decide(wantedSoFar(2), ScaleInputs{Known: true})
	if d.Workers != 0 || !s.Decided || s.Workers != 0 {
		t.Errorf("an idle queue: %d workers, state %+v, want none", d.Workers, s)
	}
}

// The stages say where a wish went.
func TestDecideTellsItsStages(t *testing.T) {
	t.Parallel()
	in := ScaleInputs{Due: 5000, Known: true, Runs: 1, RunSeconds: 2, MaxStartsPerSecond: 15}
	d, _ := leadRule.Decide(wantedSoFar(2), in)
	if want := (ScaleStages{Asked: 5, Limited: 3, Bounded: 3, Held: 3, Stepped: 3}); d.Stages != want {
		t.Errorf("a queue with a limit: %+v, want %+v", d.Stages, want)
	}
	in.Bottleneck = "database"
	d, _ = leadRule.Decide(wantedSoFar(2), in)
	if want := (ScaleStages{Asked: 5, Limited: 3, Bounded: 3, Held: 2, Stepped: 2}); d.Stages != want {
		t.Errorf("with a bottleneck, too: %+v, want %+v", d.Stages, want)
	}
}

// clockwork feeds a rule inputs 5 seconds apart.
type clockwork struct {
	rule    ScaleRule
	state   ScaleState
	at      time.Time
	arrived int64
	rate    float64 // arrivals per second
	in      ScaleInputs
}

// newClockwork has seen two minutes of perSecond arrivals and 0.2 s jobs, on workers with 10 slots.
func newClockwork(rule ScaleRule, workers int, perSecond float64) *clockwork {
	c := &clockwork{
		rule: rule, state: wantedSoFar(workers), at: time.Unix(1_800_000_000, 0), rate: perSecond,
		in: ScaleInputs{Known: true, Runs: 100, RunSeconds: 0.2, Workers: workers, Slots: 10 * workers},
	}
	for range 24 {
		c.tick()
	}
	return c
}

func (c *clockwork) tick() Decision {
	c.at = c.at.Add(5 * time.Second)
	c.arrived += int64(c.rate * 5)
	in := c.in
	in.At, in.Arrived = c.at, c.arrived
	var d Decision
	d, c.state = c.rule.Decide(c.state, in)
	return d
}

// last returns the decision after n more looks.
func (c *clockwork) last(n int) (d Decision) {
	for range n {
		d = c.tick()
	}
	return d
}

func latencyRule() ScaleRule {
	return ScaleRule{Queue: "q", Latency: 30 * time.Second, Min: 1, Max: 20}
}

func TestDecideByLatency(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		workers int     // to begin with
		rate    float64 // arrivals per second: 40 of them keep a worker busy
		change  func(c *clockwork)
		ticks   int
		want    int
		reason  Reason
	}{
		{"fits", 4, 160, nil, 1, 4, ReasonSteady},
		{"dead band above", 4, 175, nil, 1, 4, ReasonSteady},                                         // needs 4.375
		{"over the dead band", 4, 160, func(c *clockwork) { c.in.Due = 660 }, 1, 5, ReasonLoad},      // needs 4.44
		{"up at once", 4, 160, func(c *clockwork) { c.in.Due = 3000 }, 1, 6, ReasonLoad},             // needs 6
		{"to the double at most", 4, 160, func(c *clockwork) { c.in.Due = 15000 }, 1, 8, ReasonStep}, // needs 14
		{"and then the rest", 4, 160, func(c *clockwork) { c.in.Due = 15000; c.in.Workers, c.in.Slots = 99, 990 }, 2, 14, ReasonLoad},
		{"at most Max", 16, 640, func(c *clockwork) { c.in.Due = 99999 }, 1, 20, ReasonMaximum},
		{"saturated", 4, 160, func(c *clockwork) { c.in.Due = 15000; c.in.Bottleneck = "database primary" }, 5, 4, ReasonSaturated},
		{"paused", 4, 160, func(c *clockwork) { c.in.Due = 15000; c.in.Paused = true }, 5, 4, ReasonPaused},
		{"unknown", 4, 160, func(c *clockwork) { c.in = ScaleInputs{} }, 100, 4, ReasonUnknown},
		{"limited", 4, 160, func(c *clockwork) { c.in.Due = 15000; c.in.MaxStartsPerSecond = 250 }, 2, 5, ReasonLimited},
		{"limited to what is there", 4, 160, func(c *clockwork) { c.in.Due = 15000; c.in.MaxStartsPerSecond = 200 }, 5, 4, ReasonLimited},
		{"window", 8, 320, func(c *clockwork) { c.rate = 0 }, 59, 8, ReasonWindow},
		{"8 were wanted 5 minutes ago", 8, 40, nil, 36, 8, ReasonWindow},
		{"down to the half", 8, 40, nil, 37, 4, ReasonStep},
		{"and down to Min", 8, 320, func(c *clockwork) { c.rate = 0 }, 100, 1, ReasonMinimum},
		{"saturated goes down, too", 8, 320, func(c *clockwork) { c.rate = 0; c.in.Bottleneck = "x" }, 100, 1, ReasonMinimum},
		{"surplus", 8, 320, func(c *clockwork) { c.rate = 240 }, 100, 6, ReasonSteady},
		{"a spike counts for 5 minutes", 8, 320, func(c *clockwork) { c.rate = 0; c.last(50); c.in.Due = 12000; c.last(1); c.in.Due = 0 }, 30, 8, ReasonWindow},
		{"the rule's Max has become less", 30, 1200, nil, 1, 20, ReasonMaximum},
		{"deleted jobs are no negative arrivals", 4, 160, func(c *clockwork) { c.arrived -= 1 << 40 }, 1, 4, ReasonSteady},
		{"a clock that steps back", 4, 160, func(c *clockwork) { c.at = c.at.Add(-time.Hour) }, 1, 4, ReasonUnknown},
		{"a clock that has stepped back", 4, 160, func(c *clockwork) { c.at = c.at.Add(-time.Hour) }, 30, 4, ReasonSteady},
		{"a clock that steps back lets nothing go down", 8, 320, func(c *clockwork) { c.at = c.at.Add(-20 * time.Second); c.rate = 0 }, 59, 8, ReasonWindow},
		{"blind for long, then nothing goes down at once", 8, 320, func(c *clockwork) { c.at = c.at.Add(time.Hour); c.rate = 0 }, 30, 8, ReasonWindow},
		{"starting workers count", 4, 160, func(c *clockwork) { c.in.Due = 3000; c.tick(); c.in.Due = 3200 }, 1, 6, ReasonSteady},
	} {
		k := newClockwork(latencyRule(), c.workers, c.rate)
		if c.change != nil {
			c.change(k)
		}
		if d := k.last(c.ticks); d.Workers != c.want || d.Reason != c.reason {
			t.Errorf("%s: %d workers, %s, want %d, %s; load %+v stages %+v", c.name, d.Workers, d.Reason, c.want, c.reason, d.Load, d.Stages)
		}
	}
}

// With Min 0 an idle queue loses its last worker, too, but not while a job runs, and gets one back with the next job.
func TestIdleQueueHasNoWorker(t *testing.T) {
	t.Parallel()
	rule := latencyRule()
	rule.Min = 0
	c := newClockwork(rule, 4, 160)
	c.rate, c.in.Runs, c.in.Active = 0, 0, 1 // a long one
	if d := c.last(1000); d.Workers != 1 || d.Reason != ReasonSteady {
		t.Errorf("while a job runs: %d workers, %s, want 1; stages %+v", d.Workers, d.Reason, d.Stages)
	}
	c.in.Active = 0
	if d := c.last(59); d.Workers != 1 || d.Reason != ReasonWindow {
		t.Errorf("soon after its end: %d workers, %s, want 1; stages %+v", d.Workers, d.Reason, d.Stages)
	}
	if d := c.last(2); d.Workers != 0 || d.Stages.Stepped != 0 {
		t.Errorf("after more than 5 minutes: %d workers, %s, want none; stages %+v", d.Workers, d.Reason, d.Stages)
	}
	c.in.Workers, c.in.Slots = 0, 0
	if d := c.last(1000); d.Changed() || d.Workers != 0 {
		t.Errorf("after hours: %d workers, %s, want none", d.Workers, d.Reason)
	}
	c.in.Due, c.rule.Startup = 1, 20*time.Minute
	if d := c.tick(); d.Workers != 1 || d.Reason != ReasonLoad {
		t.Errorf("a job has come: %d workers, %s, want 1", d.Workers, d.Reason)
	}
	for range 1000 {
		if d := c.tick(); d.Workers != 1 {
			t.Fatalf("its worker takes its time to start: %d workers, %s, want 1; stages %+v", d.Workers, d.Reason, d.Stages)
		}
	}
}

// TestScaleMemory looks at what a state keeps of its inputs.
func TestScaleMemory(t *testing.T) {
	t.Parallel()
	near := func(what string, is, want float64) {
		t.Helper()
		if math.Abs(is-want) > 0.01*want+1e-9 {
			t.Errorf("%s: %v, want %v", what, is, want)
		}
	}
	c := newClockwork(latencyRule(), 4, 160)
	near("arrivals", c.tick().Load.ArrivalsPerSecond, 160)
	c.arrived -= 1 << 40 // jobs were deleted: they are no negative arrivals, at once and later
	near("arrivals at a deletion", c.tick().Load.ArrivalsPerSecond, 160*12/13.)
	near("arrivals after it", c.last(30).Load.ArrivalsPerSecond, 160)
	c.rate = 0
	near("half a minute after the last arrival", c.last(6).Load.ArrivalsPerSecond, 80)
	near("a minute after it", c.last(6).Load.ArrivalsPerSecond, 0)

	c = newClockwork(latencyRule(), 4, 160)
	c.in.RunSeconds = 2
	near("one slow reading", c.tick().Load.RunSeconds, 0.2+1.8*(1-math.Exp(-5./60)))
	near("many", c.last(60).Load.RunSeconds, 2)

	c = newClockwork(latencyRule(), 4, 160)
	c.in.Due = 3000 // 6 workers are wanted, and the two never start
	near("backlog when they are asked for", c.tick().Load.Backlog, 3000)
	near("half a minute later, 2 times 50 jobs a second less", c.last(6).Load.Backlog, 3000-30*100)
	near("when they had the time to start and to catch up", c.last(14).Load.Backlog, 3000)
}

// TestDecideFirst is a queue that nobody has looked at.
func TestDecideFirst(t *testing.T) {
	t.Parallel()
	rule := latencyRule()
	rule.Min = 0
	in := ScaleInputs{At: time.Unix(1_800_000_000, 0), Known: true}
	d, s := rule.Decide(ScaleState{}, in)
	if d.Workers != -1 || d.Reason != ReasonUnknown || s.Decided {
		t.Errorf("an idle queue with nothing known = %+v", d)
	}
	in.Due = 5000 // nobody knows how long they take: one is to try
	if d, s = rule.Decide(s, in); d.Workers != 1 || d.Reason != ReasonUnknown {
		t.Errorf("the first jobs = %+v", d)
	}
	rule.Run = time.Second
	in.At, in.Arrived = in.At.Add(5*time.Second), 500
	if d, _ = rule.Decide(s, in); d.Workers != 2 || d.Load.RunSeconds != 1 || d.Load.ArrivalsPerSecond != 100 {
		t.Errorf("with an assumed run time = %+v", d)
	}
	in.Workers, in.Slots = 7, 70 // they run already, and were not asked for by anybody
	rule.Run = 0
	if d, _ = rule.Decide(ScaleState{}, in); d.Workers != 7 || d.Previous != -1 {
		t.Errorf("with workers that run already = %+v", d)
	}
}

// TestScaleReplay decides again from a log of inputs, with the state written and read back in between as between two
// leaders: the decisions are the same, to the last byte.
func TestScaleReplay(t *testing.T) {
	t.Parallel()
	var log, replayed []string
	rule := latencyRule()
	w := world{run: 0.2, slots: 10, startup: 30, rate: func(s float64) float64 { return 200 + 190*math.Sin(s/97) }}
	w.fly(2, 1800, ScaleRule{}, byRule(rule, 2, func(d Decision) {
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, string(text))
	}))
	s := wantedSoFar(2)
	for _, line := range log {
		var d Decision
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		d, s = d.Rule.Decide(s, d.Inputs)
		text, _ := json.Marshal(d)
		replayed = append(replayed, string(text))
		state, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		s = ScaleState{}
		if err := json.Unmarshal(state, &s); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(log, replayed); diff != "" {
		t.Errorf("replayed decisions differ (-was +is):\n%s", clip(diff))
	}
	if len(log) != 360 || !strings.Contains(log[200], `"arrivals_per_second":`) {
		t.Errorf("%d decisions, such as %s", len(log), log[len(log)-1])
	}
}

func TestDecideAllocatesNothing(t *testing.T) {
	c := newClockwork(latencyRule(), 4, 160)
	c.in.Due = 15000
	if n := testing.AllocsPerRun(100, func() { c.tick() }); n != 0 {
		t.Errorf("Decide allocates %v times", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	b.Run("depth", func(b *testing.B) {
		b.ReportAllocs()
		s := wantedSoFar(2)
		for b.Loop() {
			_, s = leadRule.Decide(s, ScaleInputs{Due: 1500, Known: true})
		}
	})
	b.Run("latency", func(b *testing.B) {
		b.ReportAllocs()
		c := newClockwork(latencyRule(), 4, 160)
		c.in.Due = 1000
		for b.Loop() {
			c.tick()
		}
	})
}

func ExampleScaleRule_Decide() {
	rule := ScaleRule{Queue: "lead-processing", Above: 1000, Up: 5, Below: 100, Down: 2}
	var d Decision
	state := ScaleState{}
	for _, due := range []int{50, 400, 1001, 400, 99} {
		d, state = rule.Decide(state, ScaleInputs{Due: due, Known: true})
		fmt.Println(due, "due:", d.Workers, "workers,", d.Reason)
	}
	d, _ = rule.Decide(state, ScaleInputs{})
	fmt.Println("depth not known:", d.Workers, "workers,", d.Reason)
	// Output:
	// 50 due: 2 workers, below
	// 400 due: 2 workers, between
	// 1001 due: 5 workers, above
	// 400 due: 5 workers, between
	// 99 due: 2 workers, below
	// depth not known: 2 workers, unknown
}
