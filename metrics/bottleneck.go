package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Bottlenecks is the reply of GET /api/v1/performance/capacity/bottlenecks.
type Bottlenecks struct {
	// Verdict is one line: what limits first and at which throughput, or "not enough data".
	Verdict string `json:"verdict"`
	// Throughput is of ThroughputOf per second, or null when it is not known.
	Throughput *float64 `json:"throughput_per_second"`
	// ThroughputOf is requests, or jobs where no requests are served.
	ThroughputOf string `json:"throughput_of"`
	// Resources are ranked: those that fail now, those used up now, then by the throughput that each allows, then those of
	// which too little is known, by utilization.
	Resources []Resource `json:"resources"`
	// HistorySeconds is the time that ceilings and forecasts are based on.
	HistorySeconds float64 `json:"history_seconds"`
	About
}

// Resource is something that requests use up. Unknown numbers are null.
type Resource struct {
	// ID is cpu, memory, gc, http_requests, db_pool, redis_pool, workers, file_descriptors, goroutines, cache_memory or
	// queue.
	ID string `json:"id"`
	// Title is for people.
	Title string `json:"title"`
	// Labels tell resources of one kind apart.
	Labels map[string]string `json:"labels"`
	// Used and Limit are in Unit, the means over the window, of all instances together.
	Used  *float64 `json:"used"`
	Limit *float64 `json:"limit"`
	// Unit is cores, bytes, requests, connections, slots, descriptors, goroutines or jobs.
	Unit string `json:"unit"`
	// Utilization is the used part of 1, the mean over the window of the busiest instance.
	Utilization *float64 `json:"utilization"`
	// Headroom is the part still free.
	Headroom *float64 `json:"headroom"`
	// Waiting is how many wait for it, the mean over the window.
	Waiting *float64 `json:"waiting"`
	// Errors are failures per second for want of it.
	Errors *float64 `json:"errors_per_second"`
	// Throttled is, of the CPU, in which part of its periods the control group was held back, the mean over the window of the
	// instance that was so most. Null where there is no such limit.
	Throttled *float64 `json:"throttled"`
	// Demand is what one request (or job) takes, in Unit times seconds, by the slope of use over throughput.
	Demand *float64 `json:"demand"`
	// Ceiling is the throughput at which the resource is used up, by the utilization law: what is left of the limit when
	// nothing is served, over Demand. It supposes the present mix of requests. CeilingLow and CeilingHigh hold it with
	// 95 % confidence.
	Ceiling     *float64 `json:"ceiling_per_second"`
	CeilingLow  *float64 `json:"ceiling_low_per_second"`
	CeilingHigh *float64 `json:"ceiling_high_per_second"`
	// Saturation is when it will be used up if it goes on as it did, or null: see Forecast.
	Saturation *Saturation `json:"time_to_saturation"`
	// Forecast says what Saturation is, or why there is none.
	Forecast string `json:"forecast"`
	// State is what the thresholds say of Utilization.
	State Level `json:"state"`
	// Status is ok, or why Ceiling cannot be told, beginning with "not enough data" where that is the reason.
	Status string `json:"status"`
	// Evidence are the observations behind it: errors first, then saturation, then utilization, then the law.
	Evidence []string `json:"evidence"`
	// Step is what the runbook says to do.
	Step string `json:"step"`
}

const (
	// fullAt is the utilization from which somebody waits all the time.
	fullAt = .95
	// throttledAt is the part of a control group's periods from which it has too little CPU.
	throttledAt = .25
)

// bottlenecks reports on all resources in the ledger.
func (l *ledger) bottlenecks(window time.Duration, about About) *Bottlenecks {
	l.mu.Lock()
	defer l.mu.Unlock()
	driver, recent := l.driver(), int(max(1, window/l.step))
	out := &Bottlenecks{
		Verdict: notEnough, Resources: []Resource{}, About: about, ThroughputOf: rateNames[driver],
		Throughput: number(l.throughput(driver, recent)), HistorySeconds: (time.Duration(max(0, l.steps-1)) * l.step).Seconds(),
	}
	for _, key := range slices.Sorted(maps.Keys(l.uses)) {
		if u := l.recent(key, recent); u.n > 0 {
			out.Resources = append(out.Resources, l.resource(key, u, driver, window, out.ThroughputOf))
		}
	}
	slices.SortStableFunc(out.Resources, func(a, b Resource) int {
		return cmp.Or(
			cmp.Compare(a.tier(), b.tier()),
			cmp.Compare(orInf(a.Ceiling), orInf(b.Ceiling)),
			-cmp.Compare(orZero(a.Utilization), orZero(b.Utilization)),
			cmp.Compare(rowOf(a.ID), rowOf(b.ID)),
		)
	})
	out.Verdict = out.verdict(l.dropped)
	return out
}

// The tiers, the first first. What fails or is full now needs no ceiling to be seen to limit.
const (
	tierFails = iota
	tierFull
	tierBounded
	tierUnclear
)

func (r *Resource) tier() int {
	switch {
	case orZero(r.Errors) > 0:
		return tierFails
	case orZero(r.Utilization) >= fullAt && orZero(r.Waiting) >= 1, orZero(r.Throttled) >= throttledAt:
		return tierFull
	case r.Ceiling != nil:
		return tierBounded
	}
	return tierUnclear
}

func (b *Bottlenecks) verdict(dropped bool) string {
	text := notEnough
	if len(b.Resources) > 0 {
		switch first := b.Resources[0]; first.tier() {
		case tierFails:
			text = first.name() + " fails now: " + first.Evidence[0]
		case tierFull:
			text = first.name() + " is used up now: " + first.Evidence[0]
		case tierBounded:
			text = fmt.Sprintf("%s limits first, at about %s %s/s (now %s)", first.name(), figures(*first.Ceiling), b.ThroughputOf, figures(orZero(b.Throughput)))
		default:
			if first.State >= Warning {
				text += fmt.Sprintf(" for a ceiling; %s is at %.0f %%", first.name(), 100**first.Utilization)
			}
		}
	}
	var soonest *Resource
	for i, r := range b.Resources {
		if r.Saturation != nil && (soonest == nil || r.Saturation.Seconds < soonest.Saturation.Seconds) {
			soonest = &b.Resources[i]
		}
	}
	if soonest != nil && soonest.Saturation.Seconds > 0 {
		text += fmt.Sprintf("; %s is used up in about %s if it goes on as it did", soonest.name(), rough(soonest.Saturation.Seconds))
	}
	if dropped {
		text += fmt.Sprintf("; there are more than the %d resources that are kept", maxResources)
	}
	return text
}

func (l *ledger) resource(key string, u use, driver int, window time.Duration, per string) Resource {
	kind, scope := splitKey(key)
	row := kindOf(kind)
	r := Resource{
		ID: row.id, Title: row.title, Unit: row.unit, Labels: labelsOfScope(row.labels, scope), Step: row.step,
		Used: quantity(u.v[used]), Limit: quantity(u.v[limit]), Utilization: quantity(u.v[busiest]),
		Waiting: quantity(u.v[waiting]), Errors: quantity(u.v[failing]), Evidence: []string{}, Status: "ok",
	}
	recent := int(max(1, window/l.step))
	if kind == resourceCPU {
		r.Throttled = number(l.heldBack(recent))
	}
	if r.Errors != nil && *r.Errors > 0 {
		r.say("%s failures/s for want of it", figures(*r.Errors))
	}
	if t := orZero(r.Throttled); t > 0 {
		r.say("its control group was held back in %.0f %% of its periods (cpu.stat)", 100*t)
	}
	if r.Waiting != nil {
		r.say("%s wait for it", figures(*r.Waiting))
	}
	if r.Utilization == nil {
		if r.Used != nil {
			r.say("%s %s are used, and no limit is known", figures(*r.Used), r.Unit)
		}
		r.Status, r.Forecast = notEnough+": its limit is not known", notEnough+": its limit is not known"
		return r
	}
	headroom := max(0, 1-*r.Utilization)
	r.Headroom = &headroom
	r.State = row.level(*r.Utilization)
	where := ""
	if at := l.leader[key]; at != "" && !row.shared {
		where = " by " + at
	}
	r.say("%.1f %% used%s, of %s %s in all", 100**r.Utilization, where, figures(*r.Limit), r.Unit)
	if kind == resourceQueue {
		l.queueLaw(&r, scope, driver, recent, per)
	} else {
		l.law(&r, key, u, driver, per)
	}
	r.Saturation, r.Forecast = forecast(l.samples(key), window)
	if r.Saturation != nil {
		r.Forecast = r.Saturation.words()
		r.say("it grows by %.2g %% an hour over %s", 100*r.Saturation.PerHour, rough(r.Saturation.HistorySeconds))
	}
	return r
}

// law adds the ceiling, or why there is none.
func (l *ledger) law(r *Resource, key string, u use, driver int, per string) {
	if kindOf(r.ID).fixed {
		r.Status = "ok: what it holds does not follow throughput, so that it has no ceiling in " + per
		return
	}
	d, why := fitDemand(l.loads(key, driver), l.step.Seconds())
	if why != "" {
		r.Status = forDriver(why, per)
		return
	}
	// Where one instance has more to do than the others, it is full before all of it is used.
	uneven := max(1, float64(u.v[busiest])/(float64(u.v[used])/float64(u.v[limit])))
	if why := r.bounded(d, float64(u.v[limit])/uneven, per); why != "" {
		r.Status = why
		return
	}
	r.say("each of the %s takes %s %s for a second, and %s are used without any, by %d observations in which throughput varied by %.1f×",
		per, figures(d.perEvent), r.Unit, figures(d.base), d.n, min(d.spread, 999))
	if uneven > 1.1 {
		r.say("the busiest instance uses %.1f times the mean", uneven)
	}
}

// bounded adds the ceiling that a demand leaves of a capacity, or says why it is none.
func (r *Resource) bounded(d demand, capacity float64, per string) (why string) {
	x, low, high := d.ceiling(capacity)
	if high > low*widestCeiling*widestCeiling {
		return fmt.Sprintf("%s: its ceiling lies anywhere between %s and %s %s/s", notEnough, figures(low), figures(high), per)
	}
	r.Demand, r.Ceiling, r.CeilingLow, r.CeilingHigh = &d.perEvent, &x, &low, &high
	return ""
}

func forDriver(why, per string) string { return strings.ReplaceAll(why, "requests", per) }

func (r *Resource) say(format string, args ...any) {
	r.Evidence = append(r.Evidence, fmt.Sprintf(format, args...))
}

func (k *resourceKind) level(utilization float64) Level {
	switch {
	case utilization > k.critical:
		return Critical
	case utilization > k.warning:
		return Warning
	}
	return OK
}

func (r *Resource) name() string {
	name := r.Title
	for _, label := range kindOf(r.ID).labels {
		name += " " + r.Labels[label]
	}
	return name
}

func (s *Saturation) words() string {
	if s.Seconds == 0 {
		return "it is used up now, and it grows"
	}
	if s.HighSeconds == nil {
		return fmt.Sprintf("used up in about %s, not before %s", rough(s.Seconds), rough(s.LowSeconds))
	}
	return fmt.Sprintf("used up in about %s, between %s and %s", rough(s.Seconds), rough(s.LowSeconds), rough(*s.HighSeconds))
}

// labelsOfScope is the inverse of labelsJoined.
func labelsOfScope(names []string, scope string) map[string]string {
	labels := map[string]string{}
	values := strings.Split(scope, "\x1f")
	for i, name := range names {
		if i < len(values) {
			labels[name] = values[i]
		}
	}
	return labels
}

// figures are three of a number, for people.
func figures(v float64) string {
	if math.Abs(v) >= 1000 && math.Abs(v) < 1e15 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// quantity is null where it is unknown.
func quantity(v float32) *float64 {
	if v < 0 {
		return nil
	}
	return number(sixDigits(float64(v)))
}

func rowOf(id string) int {
	return slices.IndexFunc(resourceKinds, func(k resourceKind) bool { return k.id == id })
}

func orInf(v *float64) float64 {
	if v == nil {
		return math.Inf(1)
	}
	return *v
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
