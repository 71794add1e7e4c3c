package metrics

import (
	"slices"
	"time"
)

// longestDelay is what a snapshot may be late by, in milliseconds. More means that a clock was set.
const longestDelay = 60_000

// frame is what was known of all instances at one moment of our clock.
type frame struct {
	at       time.Time
	readings map[string]*reading // by instance, never changed
	// partial means that the other instances could not be asked: those that are not there have not ended.
	partial bool
}

// window keeps the samples of the last minutes. An instance is what Prometheus would scrape, each of its points a
// series, and a frame with a reading not seen before a scrape.
type window struct {
	arithmetic
	table   map[string]*KeyMetric
	groups  map[string]map[string]*group // by metric and scope
	sources map[string]*source           // by instance
	since   time.Time                    // of the first frame
	latest  frame
	scratch [2][]float64
}

// group is a metric's scope on all instances.
type group struct {
	scope  string
	tracks []*track // by instance
}

// source is an instance.
type source struct {
	reading *reading
	at      int64                      // when that was taken, on our clock
	shift   int64                      // from the instance's clock to ours
	began   int64                      // when its counters were at zero
	counted map[string]map[string]bool // metrics and scopes that it has told of since
}

func newWindow(table []KeyMetric, length time.Duration, leftOpen bool) window {
	w := window{
		arithmetic: arithmetic{length.Milliseconds(), leftOpen},
		table:      map[string]*KeyMetric{}, groups: map[string]map[string]*group{}, sources: map[string]*source{},
	}
	widest := 2
	for i := range table {
		w.table[table[i].ID] = &table[i]
		widest = max(widest, table[i].width())
	}
	for i := range w.scratch {
		w.scratch[i] = make([]float64, widest)
	}
	return w
}

// add takes a frame. One that is older than the last means that the clock was set back: all begins anew.
func (w *window) add(f frame) {
	now, before := f.at.UnixMilli(), w.latest.at.UnixMilli()
	if w.latest.at.IsZero() || now < before {
		clear(w.groups)
		clear(w.sources)
		w.since = f.at
	}
	missed := max(before, now-slowSpan-1) // a clock that is set may leap over years
	for at := missed - missed%slowStep + slowStep; at < now; at += slowStep {
		w.keepSlow(at)
	}
	for name, r := range f.readings {
		w.read(name, r, now)
	}
	if !f.partial {
		w.end(f.readings, now)
	}
	w.latest = f
	if now%slowStep == 0 {
		w.keepSlow(now)
	}
	w.forget(now - max(w.span, lookback))
}

// read takes an instance's points as a scrape, unless they are the same as before.
func (w *window) read(name string, r *reading, now int64) {
	s := w.sources[name]
	if s == nil {
		s = &source{}
		w.sources[name] = s
	}
	last := s.reading
	if last != nil && last.Started == r.Started && last.At == r.At {
		return
	}
	alive := last != nil && last.Started == r.Started
	at := s.taken(r, now, alive)
	if !alive {
		// Its counters were at zero when it began: the time since then is told by its own clock.
		began := at - r.age().Milliseconds()
		if last != nil {
			began = max(began, s.at+1)
		}
		s.began, s.counted = began, map[string]map[string]bool{}
	}
	for id, scopes := range r.Points {
		m := w.table[id]
		for scope, numbers := range scopes {
			t := w.track(id, scope, name, len(numbers))
			if m.counts() && s.begins(id, scope) {
				zero := s.began
				if alive { // it has appeared since we looked last
					zero = s.at
				}
				if zero < at {
					t.put(zero, make([]float64, len(numbers)))
				}
			}
			t.put(at, numbers)
		}
	}
	s.reading, s.at = r, at
}

// begins says whether this is the first that the instance tells of a counter. Later it may vanish and come back, but
// not at zero.
func (s *source) begins(id, scope string) bool {
	if s.counted[id][scope] {
		return false
	}
	if s.counted[id] == nil {
		s.counted[id] = map[string]bool{}
	}
	s.counted[id][scope] = true
	return true
}

// taken is when a reading was taken, on our clock. It is read up to an interval later, and how much later varies: the
// shortest delay seen tells how far the clocks are apart.
func (s *source) taken(r *reading, now int64, alive bool) int64 {
	delay := now - r.At
	if !alive || delay > s.shift+longestDelay {
		s.shift = delay
	}
	s.shift = min(s.shift, delay)
	return r.At + s.shift
}

// counts says whether the metric's points begin at zero where they begin.
func (m *KeyMetric) counts() bool { return !m.gauge() && m.Statistic != RateOfOne }

func (w *window) track(id, scope, instance string, width int) *track {
	scopes := w.groups[id]
	if scopes == nil {
		scopes = map[string]*group{}
		w.groups[id] = scopes
	}
	g := scopes[scope]
	if g == nil {
		g = &group{scope: scope}
		scopes[scope] = g
	}
	i, found := slices.BinarySearchFunc(g.tracks, instance, func(t *track, name string) int {
		if t.instance < name {
			return -1
		} else if t.instance > name {
			return 1
		}
		return 0
	})
	if !found {
		g.tracks = slices.Insert(g.tracks, i, &track{instance: instance, width: width})
	}
	return g.tracks[i]
}

// end marks the series that their instances tell no longer, as Prometheus does with its stale markers.
func (w *window) end(readings map[string]*reading, now int64) {
	for id, scopes := range w.groups {
		for scope, g := range scopes {
			for _, t := range g.tracks {
				if r := readings[t.instance]; r == nil || r.Points[id][scope] == nil {
					t.stale = true
				}
			}
		}
	}
	for name, s := range w.sources {
		if readings[name] == nil && now-s.at > w.span {
			delete(w.sources, name)
		}
	}
}

func (w *window) keepSlow(at int64) {
	for id, m := range w.table {
		if m.Statistic != GrowthPerDay {
			continue
		}
		for _, g := range w.groups[id] {
			for _, t := range g.tracks {
				t.keepSlow(w.arithmetic, at)
			}
		}
	}
}

// forget drops what no value needs any longer.
func (w *window) forget(before int64) {
	for _, scopes := range w.groups {
		for scope, g := range scopes {
			for _, t := range g.tracks {
				t.forget(before)
			}
			g.tracks = slices.DeleteFunc(g.tracks, (*track).empty)
			if len(g.tracks) == 0 {
				delete(scopes, scope)
			}
		}
	}
}

func (t *track) empty() bool { return len(t.times) == 0 && len(t.slow) == 0 }

func (w *window) newest() frame { return w.latest }

// elapsed is the time that the window has seen, up to its length.
func (w *window) elapsed() time.Duration {
	return min(time.Duration(w.span)*time.Millisecond, w.latest.at.Sub(w.since))
}
