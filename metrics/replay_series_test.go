package metrics

import (
	"maps"
	"math"
	"slices"
	"strconv"
)

// regime is a level that a value keeps for some minutes: a factor of one of its thresholds.
type regime struct {
	s      *scenario
	summed bool // over instances
	levels []float64
	until  float64
	factor float64
	level  float64
	volume float64
}

func (r *regime) at(now float64) (target float64) {
	if now >= r.until {
		r.until = now + 60 + 600*r.s.rnd.Float64()
		r.level = r.levels[r.s.rnd.IntN(len(r.levels))]
		r.factor = []float64{0, .5, .9, .97, 1, 1.03, 1.1, 2, 10}[r.s.rnd.IntN(9)]
		if r.factor == 1 && r.summed && r.s.hosts > 1 {
			r.factor = 1.01 // Prometheus adds instances in no certain order, so that a sum at the threshold may be on either side
		}
		r.volume = []float64{0, 4, 30, 400, 5000}[r.s.rnd.IntN(5)]
	}
	return r.level * r.factor
}

// describe makes the groups of one instance.
func (s *scenario) describe() {
	row := func(id string) KeyMetric {
		m, ok := s.table.Row(id)
		if !ok {
			panic(id)
		}
		return m
	}
	regimeOf := func(ms ...KeyMetric) *regime {
		r := &regime{s: s}
		for _, m := range ms {
			r.levels = append(r.levels, m.Warning, m.Critical)
			if m.WarningClear != 0 {
				r.levels = append(r.levels, m.WarningClear, m.CriticalClear)
			}
		}
		return r
	}
	add := func(g replayGroup) { s.groups = append(s.groups, &g) }

	s.histogram([]KeyMetric{row("api_latency_p95"), row("api_latency_p99")}, map[string]string{"route": "/", "method": "GET", "code": "2xx"}, "", false)
	s.histogram([]KeyMetric{row("db_query_time")}, map[string]string{"pool": "p", "operation": "get"}, "", true)
	for _, queue := range []string{"q1", "q2"} {
		s.histogram([]KeyMetric{row("job_time")}, map[string]string{"queue": queue, "type": "t", "outcome": "done"}, queue, false)
		s.share(row("job_failed_rate"), map[string]string{"queue": queue, "type": "u"}, queue)
		depth := row("queue_depth")
		r := regimeOf(depth)
		add(replayGroup{
			scope: queue, names: []replaySeries{{Name: depth.Series.Name, Labels: map[string]string{"queue": queue, "state": "pending"}}},
			move:   func(n []float64, _, now float64) { n[0] = math.Round(r.at(now)) },
			points: func(n []float64) map[string][]float64 { return map[string][]float64{depth.ID: n} },
		})
	}
	s.share(row("api_error_rate"), map[string]string{"route": "/", "method": "GET"}, "")
	s.share(row("cache_hit_rate"), map[string]string{"cache": "c"}, "")
	s.share(row("cache_stale_ratio"), map[string]string{"cache": "c"}, "c")

	s.ratio(row("db_pool_utilization"), map[string]string{"pool": "p", "role": "primary"}, "p")
	for _, server := range []string{"s1", "s2"} {
		s.ratio(row("cache_memory"), map[string]string{"server": server}, server)
		evicting := row("cache_evicting")
		add(replayGroup{
			scope: server, names: []replaySeries{{Name: evicting.Series.Name, Labels: map[string]string{"server": server}}},
			move: func(n []float64, _, _ float64) {
				if s.rnd.IntN(50) == 0 {
					n[0] = 1 - n[0]
				}
			},
			points: func(n []float64) map[string][]float64 { return map[string][]float64{evicting.ID: n} },
		})
		s.counter(row("cache_evictions"), map[string]string{"server": server}, server)
	}
	s.counter(row("db_pool_waiters"), map[string]string{"pool": "p", "role": "primary"}, "p")

	growth, size := row("db_size_growth"), row("db_size")
	r := regimeOf(growth)
	add(replayGroup{
		scope: "d", names: []replaySeries{{Name: size.Series.Name, Labels: map[string]string{"datname": "d"}}},
		move: func(n []float64, seconds, now float64) { n[0] += math.Round(r.at(now) / 86400 * seconds) },
		points: func(n []float64) map[string][]float64 {
			return map[string][]float64{size.ID: n, growth.ID: n}
		},
	})
	age := row("sampler_age")
	a := regimeOf(age)
	add(replayGroup{
		scope: "cache\x1fsample", names: []replaySeries{{Name: age.Series.Name, Labels: map[string]string{"package": "cache", "task": "sample"}}},
		move: func(n []float64, _, now float64) {
			if a.at(now) == 0 || s.rnd.IntN(40) == 0 {
				n[0] = now
			}
		},
		points: func(n []float64) map[string][]float64 { return map[string][]float64{age.ID: n} },
	})
}

// histogram makes observations on the sides of its metrics' thresholds.
func (s *scenario) histogram(ms []KeyMetric, labels map[string]string, scope string, slow bool) {
	buckets := ms[0].Series.Buckets
	g := &replayGroup{scope: scope, counted: true}
	name := func(suffix, le string) {
		l := maps.Clone(labels)
		if le != "" {
			l["le"] = le
		}
		g.names = append(g.names, replaySeries{Name: ms[0].Series.Name + suffix, Labels: l})
	}
	for _, b := range buckets {
		name("_bucket", strconv.FormatFloat(b, 'f', -1, 64))
	}
	name("_bucket", "+Inf")
	if slow {
		name("_count", "")
	}
	r := &regime{s: s, summed: true, levels: []float64{1}}
	m := ms[0]
	var bound float64
	g.move = func(n []float64, seconds, now float64) {
		fresh := now >= r.until
		r.at(now)
		if fresh {
			m = ms[s.rnd.IntN(len(ms))]
			bound = []float64{m.Warning, m.Critical}[s.rnd.IntN(2)]
			if m.WarningClear != 0 && s.rnd.IntN(2) == 0 {
				bound = []float64{m.WarningClear, m.CriticalClear}[s.rnd.IntN(2)]
			}
		}
		total := math.Round(r.volume * seconds / 30 * (.5 + s.rnd.Float64()))
		over := math.Round(min(1, (1-m.Param)*r.factor) * total)
		at := slices.Index(buckets, bound)
		for range 4 { // to four buckets on each side
			for _, part := range []struct {
				events   float64
				from, to int
			}{{math.Round(over / 4), at + 1, len(buckets) + 1}, {math.Round((total - over) / 4), 0, at + 1}} {
				b := part.from + s.rnd.IntN(part.to-part.from)
				for i := b; i <= len(buckets); i++ {
					n[i] += part.events
				}
			}
		}
		if slow {
			n[len(n)-1] = n[len(buckets)]
		}
	}
	g.points = func(n []float64) map[string][]float64 {
		out := map[string][]float64{}
		for _, m := range ms {
			out[m.ID] = n[:len(buckets)+1]
		}
		if slow {
			row, _ := s.table.Row("db_slow_queries")
			out[row.ID] = []float64{n[len(buckets)], n[slices.Index(buckets, row.Param)]}
		}
		return out
	}
	s.groups = append(s.groups, g)
}

// share makes events of which a part near the thresholds is selected.
func (s *scenario) share(m KeyMetric, labels map[string]string, scope string) {
	chosen, other := maps.Clone(labels), maps.Clone(labels)
	chosen[m.Label], other[m.Label] = m.Value, m.other()
	if m.Not {
		chosen, other = other, chosen
	}
	name := m.events("")
	g := &replayGroup{scope: scope, counted: true, names: []replaySeries{{Name: name, Labels: chosen}, {Name: name, Labels: other}}}
	r := &regime{s: s, summed: true, levels: []float64{m.Warning, m.Critical}}
	g.move = func(n []float64, seconds, now float64) {
		share := min(1, r.at(now))
		total := math.Round(r.volume * seconds / 30 * (.5 + s.rnd.Float64()))
		part := math.Round(share * total)
		n[0] += part
		n[1] += total - part
	}
	g.points = func(n []float64) map[string][]float64 { return map[string][]float64{m.ID: n} }
	s.groups = append(s.groups, g)
}

// ratio makes a gauge near the thresholds of a limit that is at times 0, which is none.
func (s *scenario) ratio(m KeyMetric, labels map[string]string, scope string) {
	r := &regime{s: s, levels: []float64{m.Warning, m.Critical}}
	g := &replayGroup{scope: scope, names: []replaySeries{{Name: m.Series.Name, Labels: labels}, {Name: m.Of.Name, Labels: labels}}}
	g.move = func(n []float64, _, now float64) {
		n[0], n[1] = math.Round(100*min(1, r.at(now))), 100
		if s.rnd.IntN(100) == 0 {
			n[1] = 0
		}
	}
	g.points = func(n []float64) map[string][]float64 {
		if n[1] == 0 {
			return nil // as collect leaves it out
		}
		return map[string][]float64{m.ID: {n[0] / n[1]}}
	}
	s.groups = append(s.groups, g)
}

// counter makes a rate near the thresholds.
func (s *scenario) counter(m KeyMetric, labels map[string]string, scope string) {
	r := &regime{s: s, summed: m.Statistic == Rate, levels: []float64{m.Warning, m.Critical}}
	g := &replayGroup{scope: scope, counted: true, fixed: m.Statistic == RateOfOne, names: []replaySeries{{Name: m.Series.Name, Labels: labels}}}
	g.move = func(n []float64, seconds, now float64) { n[0] += math.Round(1000*r.at(now)*seconds) / 1000 }
	g.points = func(n []float64) map[string][]float64 { return map[string][]float64{m.ID: n} }
	s.groups = append(s.groups, g)
}
