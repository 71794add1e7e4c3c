package metrics

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// vitals are what an instance knows of its resources, shared with its snapshot. -1 is what it does not know.
type vitals struct {
	// Program is the program's version.
	Program string `json:"program,omitempty"`
	// Every is the time between two snapshots in milliseconds.
	Every int64 `json:"every"`
	// Rates are requests and jobs per second since the snapshot before.
	Rates [2]float64 `json:"rates"`
	// Usage is by resource and its labels' values.
	Usage map[string]usage `json:"usage"`
	// Held is in which part of its periods the control group was held back, or null where there is no such limit.
	Held *float64 `json:"held,omitempty"`
	// Queues are what the instance does for each queue.
	Queues map[string]queueLoad `json:"queues,omitempty"`
	// Blame is by key metric and scope.
	Blame map[string]blame `json:"blame,omitempty"`
}

// usage is how much of a resource is used, of how much, how many wait for it, and failures per second for want of it.
type usage [4]float64

const (
	used = iota
	limit
	waiting
	failing
)

const unknown = -1

// The rates.
const (
	requestRate = iota
	jobRate
)

var rateNames = [...]string{"requests", "jobs"}

const (
	maxUsages  = 64
	maxProgram = 128
	// largest bounds what others claim: sums of it stay numbers.
	largest = 1e18
)

// check takes nothing for granted: anybody may have written it.
func (v *vitals) check() error {
	if v.Every < 0 || v.Every > time.Hour.Milliseconds() || len(v.Program) > maxProgram {
		return errors.New("metrics: a snapshot's vitals have an impossible interval or version")
	}
	if len(v.Usage) > maxUsages {
		return fmt.Errorf("metrics: a snapshot has %d resources, at most %d are read", len(v.Usage), maxUsages)
	}
	if !plausible(v.Rates[:]) {
		return fmt.Errorf("metrics: a snapshot has rates of %g a second", v.Rates)
	}
	for key, u := range v.Usage {
		if !plausible(u[:]) {
			return fmt.Errorf("metrics: a snapshot has a use of %g of %.64q", u, key)
		}
	}
	if v.Held != nil && !(*v.Held >= 0 && *v.Held <= 1) {
		return fmt.Errorf("metrics: a snapshot was held back in %g of its periods", *v.Held)
	}
	if err := checkQueueLoads(v.Queues); err != nil {
		return err
	}
	return checkBlame(v.Blame)
}

func plausible(numbers []float64) bool {
	for _, n := range numbers {
		if n != unknown && !(n >= 0 && n <= largest) {
			return false
		}
	}
	return true
}

// examiner takes an instance's own vitals.
type examiner struct {
	program string
	every   time.Duration
	limits  Limits
	probe   *probe
	last    time.Time
	counts  map[string]float64
	blamed  *blamer
}

func newExaminer(table []KeyMetric, opts *CapacityOptions) *examiner {
	return &examiner{
		program: opts.Version, every: opts.Interval, limits: opts.Limits,
		probe: newProbe(), counts: map[string]float64{}, blamed: newBlamer(table, opts.Window),
	}
}

// examine takes the vitals from what was gathered and from the runtime, with the causes of the wanted key metrics.
func (e *examiner) examine(now time.Time, families []*dto.MetricFamily, wanted map[string]bool) *vitals {
	by := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		by[f.GetName()] = f
	}
	seconds := now.Sub(e.last).Seconds()
	if e.last.IsZero() || seconds <= 0 {
		seconds = math.Inf(1) // no rates yet
	}
	e.last = now
	v := &vitals{Program: e.program, Every: e.every.Milliseconds(), Usage: map[string]usage{}, Blame: e.blamed.blame(now, by, wanted)}
	var requests, jobs, worked float64
	for _, child := range by[HTTPRequestDuration.Name].GetMetric() {
		requests += float64(child.GetHistogram().GetSampleCount())
	}
	for _, child := range by[JobDuration.Name].GetMetric() {
		jobs += float64(child.GetHistogram().GetSampleCount())
		worked += child.GetHistogram().GetSampleSum()
	}
	v.Rates = [2]float64{e.rate("requests", requests, seconds), e.rate("jobs", jobs, seconds)}
	put := func(kind, scope string, u usage) {
		if len(v.Usage) < maxUsages && plausible(u[:]) {
			v.Usage[resourceKey(kind, scope)] = u
		}
	}
	e.probe.read(now, e.limits, func(kind string, u usage) { put(kind, "", u) })
	v.Held = e.probe.held()
	perSecond := e.rate("worked", worked, seconds)
	v.Queues = e.queueLoads(by, seconds, perSecond)
	e.families(by, seconds, perSecond, put)
	return v
}

// rate is what a sum of counters has gained per second. One that has shrunk lost a child, and says nothing.
func (e *examiner) rate(name string, now, seconds float64) float64 {
	before, seen := e.counts[name]
	e.counts[name] = now
	if !seen || math.IsInf(seconds, 1) || now < before {
		return unknown
	}
	return (now - before) / seconds
}

func resourceKey(kind, scope string) string { return kind + "\x1e" + scope }

func splitKey(key string) (kind, scope string) {
	kind, scope, _ = strings.Cut(key, "\x1e")
	return kind, scope
}
