package metrics

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const promTick = 30 * time.Second

// flow is what a series of a test does at each tick: a counter grows by step, a gauge stands at it, a clock shows a
// time that is step seconds before the tick.
type flow struct {
	series       string
	step         float64
	gauge, clock bool
}

// flows make the metric's series with a value just past, or just not past, the threshold.
func (m KeyMetric) flows(threshold float64, past bool) (list []flow) {
	factor := .99
	if past == (m.Op == Above) {
		factor = 1.01
	}
	add := func(s Series, suffix, selected, extra string, step float64) {
		labels := []string{extra}
		for _, name := range s.Labels {
			value := "x"
			if name == m.Label {
				value = selected
			}
			labels = append(labels, fmt.Sprintf("%s=%q", name, value))
		}
		list = append(list, flow{s.Name + suffix + "{" + strings.Join(labels, ",") + "}", step, s.Kind == Gauge, m.Statistic == Age})
	}
	const a, b = `instance="a"`, `instance="b"`
	switch m.Statistic {
	case Quantile:
		within := m.Param*1000 - 1
		if !past {
			within = m.Param*1000 + 1
		}
		// One instance is fast and the other slow, so that only their sum tells.
		for _, bound := range append(m.Series.Buckets[:len(m.Series.Buckets):len(m.Series.Buckets)], math.Inf(1)) {
			fast, slow := 0.0, 0.0
			if bound >= threshold {
				fast = within
			}
			if bound > threshold {
				slow = 1000 - within
			}
			le := `,le="` + strconv.FormatFloat(bound, 'f', -1, 64) + `"`
			add(m.Series, "_bucket", "x", a+le, fast)
			add(m.Series, "_bucket", "x", b+le, slow)
		}
		add(m.Series, "_count", "x", a, within)
		add(m.Series, "_count", "x", b, 1000-within)
	case Share:
		suffix := ""
		if m.Series.Kind == Histogram {
			suffix = "_count"
		}
		part, rest := 10000*threshold*factor, 10000-10000*threshold*factor
		if m.Not {
			part, rest = rest, part
		}
		add(m.Series, suffix, m.Value, a, part/4)
		add(m.Series, suffix, m.Value, b, part-part/4)
		add(m.Series, suffix, m.other(), a, rest)
		if len(m.Among) > 0 {
			add(m.Series, suffix, "left out", b, 1e6)
		}
	case OverPerMinute:
		add(m.Series, "_bucket", "x", a+`,le="`+strconv.FormatFloat(m.Param, 'f', -1, 64)+`"`, 7)
		add(m.Series, "_count", "x", a, 7+threshold*factor/2)
	case RateOfOne:
		add(m.Series, "", "x", a, 30*threshold*factor)
		add(m.Series, "", "x", b, 30*threshold*factor) // the same server, seen by two instances
	case Largest:
		value := threshold
		if past {
			value++
		}
		add(m.Series, "", m.Value, a, value)
		add(m.Series, "", m.Value, b, value)
		add(m.Series, "", "other", b, 100*threshold)
	case LargestRatio:
		busy := 100 * threshold
		if past {
			busy++
		}
		for instance, v := range map[string]float64{a: busy, b: 5} {
			add(m.Series, "", "x", instance, v)
			add(m.Of, "", "x", instance, 100)
		}
	case Age:
		age := threshold
		if past {
			age++
		}
		add(m.Series, "", "x", a, age)
		add(m.Series, "", "x", b, age+1000) // another instance's sampler is older
	}
	return list
}

// play writes the flows for promtool, one letter a tick: p is past the threshold, n just not, i idle (counters stand
// still), _ a sample that is missing, S a scrape that failed, R a restart, from which on it goes on as p.
func (m KeyMetric) play(threshold float64, timeline string) []promInput {
	past, not := m.flows(threshold, true), m.flows(threshold, false)
	var list []promInput
	for i, f := range past {
		var values []string
		total := 0.0
		for tick, letter := range timeline {
			step := f.step
			switch letter {
			case '_':
				values = append(values, "_")
			case 'S':
				values = append(values, "stale")
			case 'n':
				step = not[i].step
			case 'i':
				step = 0
			case 'R':
				total = 0
			}
			if tick > 0 { // a counter's first sample is where it begins
				total += step // the process goes on counting when nobody scrapes it
			}
			switch {
			case letter == '_' || letter == 'S':
			case f.clock:
				values = append(values, strconv.FormatFloat(promTick.Seconds()*float64(tick)-step, 'f', -1, 64))
			case f.gauge:
				values = append(values, strconv.FormatFloat(step, 'f', -1, 64))
			default:
				values = append(values, strconv.FormatFloat(total, 'f', -1, 64))
			}
		}
		list = append(list, promInput{f.series, strings.Join(values, " ")})
	}
	return list
}

// truth says at which ticks of a timeline for the threshold target the alert of the threshold t is due, by arithmetic
// that shares nothing with the rules'.
func (m KeyMetric) truth(target, t Threshold, timeline string) []bool {
	past := make([]bool, len(timeline))
	for i, letter := range timeline {
		switch m.Statistic {
		case LargestRatio, Largest, Age:
			if letter == '_' && i > 0 {
				past[i] = past[i-1] // the last sample still counts
				continue
			}
			past[i] = letter != 'S' && m.isPast(letter, target, t)
		default:
			events, over := 0.0, 0.0 // what the last ten ticks have counted, and how many of them were past
			for j := max(1, i-9); j <= i; j++ {
				switch timeline[j] {
				case 'n':
					events++
					over += .99
				case 'i':
				default:
					events++
					over += 1.01
				}
			}
			switch m.Statistic {
			case RateOfOne, OverPerMinute:
				past[i] = over/10*target.Value > t.Value*1.0001
			default:
				past[i] = events > 0 && m.isPast(letter, target, t)
				if letter == 'i' {
					past[i] = events > 0 && m.isPast('p', target, t)
				}
			}
			past[i] = past[i] && events >= m.minTicks()
		}
	}
	return past
}

// other is a value that counts and is not the selected one.
func (m KeyMetric) other() string {
	for _, value := range m.Among {
		if value != m.Value {
			return value
		}
	}
	return "other"
}

// minTicks is after how many ticks of any flow MinEvents are there; tests choose it between two, and the first tick has
// what a row asks for by itself.
func (m KeyMetric) minTicks() float64 {
	if m.MinEvents < 1000 {
		return 0
	}
	return 5
}

// isPast compares what a letter means for target with t, of which target may be the worse.
func (m KeyMetric) isPast(letter rune, target, t Threshold) bool {
	if t.Severity > target.Severity {
		return false // just past the warning is far from critical
	}
	return t.Severity < target.Severity || letter != 'n'
}

// states runs Prometheus's state machine over the ticks: when the alert fires.
func (m KeyMetric) states(t Threshold, past []bool) []bool {
	firing := make([]bool, len(past))
	since, until := -1, -1 // ticks: since when past, since when no longer
	for i, p := range past {
		at := func(tick int) time.Duration { return time.Duration(i-tick) * promTick }
		fired := i > 0 && firing[i-1]
		switch {
		case p && fired:
			until, firing[i] = -1, true
		case p:
			if since < 0 {
				since = i
			}
			firing[i] = at(since) >= t.For
		case fired:
			if until < 0 {
				until = i
			}
			if firing[i] = at(until) < m.KeepFiringFor; !firing[i] {
				since, until = -1, -1
			}
		default:
			since = -1
		}
	}
	return firing
}
