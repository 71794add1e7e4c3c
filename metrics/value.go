package metrics

// results are what the table's rules record: a number by metric and scope. A scope without a value is absent, or NaN.
type results map[string]map[string]float64

// evaluate writes the value of each of the table's metrics, in its order, reusing what v has allocated.
func (w *window) evaluate(v results, table []KeyMetric, only string) {
	for i := range table {
		m := &table[i]
		w.write(v.clear(m.ID), m, only)
		if m.MinEvents != 0 {
			w.events(v.clear(m.eventsKey()), m, only)
		}
	}
}

func (v results) clear(id string) map[string]float64 {
	out := v[id]
	if out == nil {
		out = map[string]float64{}
		v[id] = out
	}
	clear(out)
	return out
}

// eventsKey is where the results have how many events a metric that needs MinEvents is made of.
func (m *KeyMetric) eventsKey() string { return m.ID + " events" }

func (w *window) events(out map[string]float64, m *KeyMetric, only string) {
	for scope, g := range w.groups[m.ID] {
		if sum, known := w.sum(m, g, only, w.increase); known {
			switch m.Statistic {
			case Share:
				out[scope] = sum[0] + sum[1]
			case Quantile:
				out[scope] = sum[len(sum)-1]
			default:
				out[scope] = sum[0]
			}
		}
	}
}

// values computes a metric by scope, of all instances or of only one.
func (w *window) values(m KeyMetric, only string) map[string]float64 {
	out := map[string]float64{}
	w.write(out, &m, only)
	return out
}

func (w *window) write(out map[string]float64, m *KeyMetric, only string) {
	for scope, g := range w.groups[m.ID] {
		if value, ok := w.value(m, g, only); ok {
			out[scope] = value
		}
	}
}

func (w *window) value(m *KeyMetric, g *group, only string) (float64, bool) {
	now := w.latest.at.UnixMilli()
	switch {
	case m.Statistic == GrowthPerDay:
		slope, ok := w.slope(g.tracks, only, now)
		return 86400 * slope, ok
	case m.Statistic == Age:
		last, ok := w.largest(g, only, now)
		return float64(now)/1000 - last, ok
	case m.gauge():
		return w.largest(g, only, now)
	}
	sum, known := w.sum(m, g, only, w.rate)
	if !known {
		return 0, false
	}
	return w.compute(m, sum), true
}

// sum adds what of makes of the instances' tracks, or takes the largest of what all of them show alike.
func (w *window) sum(m *KeyMetric, g *group, only string, of func([]float64, *track, int64) bool) (sum []float64, known bool) {
	sum, one := w.scratch[0][:m.width()], w.scratch[1][:m.width()]
	clear(sum)
	for _, t := range g.tracks {
		if !t.of(only) || !of(one, t, w.latest.at.UnixMilli()) {
			continue
		}
		for i, n := range one {
			if m.Statistic == RateOfOne {
				sum[i] = max(sum[i], n)
			} else {
				sum[i] += n
			}
		}
		known = true
	}
	return sum, known
}

// largest is that of the instances' gauges, none of which is below zero.
func (w *window) largest(g *group, only string, now int64) (largest float64, known bool) {
	for _, t := range g.tracks {
		if !t.of(only) {
			continue
		}
		if value, ok := t.gauge(w.arithmetic, now); ok {
			largest, known = max(largest, value), true
		}
	}
	return largest, known
}

// compute makes the value of the rates of a metric's numbers.
func (w *window) compute(m *KeyMetric, rates []float64) float64 {
	switch m.Statistic {
	case Quantile:
		return w.bucketQuantile(m.Param, m.Series.Buckets, rates)
	case Share:
		return rates[0] / (rates[0] + rates[1]) // NaN of nothing: 0/0
	case OverPerMinute:
		return 60 * (rates[0] - rates[1])
	}
	return rates[0]
}
