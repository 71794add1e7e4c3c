package metrics

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at is one instance's throughput and pool as frames tell it: started and seen in seconds, -1 for not there.
type at struct{ started, second, requests, pool float64 }

func windowOf(length time.Duration, frames ...map[string]at) *window {
	w := newWindow(KeyMetrics().Rows, length, false)
	for i, f := range frames {
		w.see(float64(10*i), f)
	}
	return &w
}

// see adds a frame at a second of our clock.
func (w *window) see(second float64, f map[string]at) {
	readings := map[string]*reading{}
	for name, a := range f {
		r := &reading{Started: int64(a.started * 1000), At: int64(a.second * 1000), Points: points{}}
		r.Points.at("api_throughput", "", 1)[0] = a.requests
		r.Points.at("db_pool_utilization", "app", 1)[0] = a.pool
		r.Points.at("cache_evictions", "r1", 1)[0] = a.requests
		readings[name] = r
	}
	w.add(frame{epoch.Add(time.Duration(second * float64(time.Second))), readings, false})
}

func TestWindowOverTheFleet(t *testing.T) {
	for name, test := range map[string]struct {
		only     string
		frames   []map[string]at
		requests float64 // in the window
	}{
		"two instances": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}, "b": {-100, 0, 7, .1}},
			{"a": {-100, 10, 60, .1}, "b": {-100, 10, 10, .1}},
		}, 13},
		"one of them": {"a", []map[string]at{
			{"a": {-100, 0, 50, .1}, "b": {-100, 0, 7, .1}},
			{"a": {-100, 10, 60, .1}, "b": {-100, 10, 10, .1}},
		}, 10},
		"one vanishes": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}, "b": {-100, 0, 7, .1}},
			{"a": {-100, 10, 60, .1}, "b": {-100, 10, 10, .1}},
			{"a": {-100, 20, 61, .1}},
		}, 14},
		"one comes back after a gap": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}, "b": {-100, 0, 7, .1}},
			{"a": {-100, 10, 50, .1}},
			{"a": {-100, 20, 50, .1}, "b": {-100, 20, 9, .1}},
		}, 2},
		"one restarts under its name": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {-100, 10, 60, .1}},
			{"a": {15, 20, 3, .1}},
		}, 13},
		"a restarted one that has caught up": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {2, 10, 55, .1}},
		}, 55},
		"a new one counts from its zero": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {-100, 10, 50, .1}, "b": {4, 10, 5, .1}},
		}, 5},
		"one whose first counts came at its very beginning": {"", []map[string]at{
			{"a": {0, 0, 5, .1}},
			{"a": {0, 10, 8, .1}},
		}, 3},
		"a new one that is as old as the window": {"", []map[string]at{
			{"b": {-100, 0, 50, .1}}, {"b": {-100, 10, 50, .1}}, {"b": {-100, 20, 50, .1}},
			{"b": {-100, 30, 50, .1}, "a": {0, 30, 5, .1}},
		}, 5},
		"a restarted one that claims to be older than it can be": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {-5, 10, 55, .1}},
		}, 55},
		"one restarts where the clock is half a minute behind": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {-27, -20, 3, .1}},
		}, 3},
		"an old one seen late does not": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {-100, 10, 50, .1}, "b": {-1000, 10, 1e6, .1}},
			{"a": {-100, 20, 50, .1}, "b": {-1000, 20, 1e6 + 1, .1}},
		}, 1},
		"another clock": {"", []map[string]at{
			{"a": {-100, 0, 50, .1}},
			{"a": {-100, 10, 50, .1}, "b": {900004, 900010, 5, .1}},
		}, 5},
		"outside the window": {"", []map[string]at{
			{"a": {-100, 0, 0, .1}}, {"a": {-100, 10, 1000, .1}}, {"a": {-100, 20, 1001, .1}}, {"a": {-100, 30, 1003, .1}}, {"a": {-100, 40, 1007, .1}},
		}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			w := windowOf(30*time.Second, test.frames...)
			got := 0.0
			for _, t := range w.groups["api_throughput"][""].tracks {
				if lo := w.from(t.times, w.latest.at.UnixMilli()); t.of(test.only) && lo < len(t.times) {
					gained := make([]float64, t.width)
					t.gain(gained, lo)
					got += gained[0]
				}
			}
			if math.Abs(got-test.requests) > 1e-9 {
				t.Errorf("%v requests in the window, want %v", got, test.requests)
			}
		})
	}
}

func TestWindowTakesTheLargestOfWhatEachInstanceSees(t *testing.T) {
	w := windowOf(time.Minute,
		map[string]at{"a": {-100, 0, 0, .95}, "b": {-100, 0, 0, .1}, "gone": {-100, 0, 0, 1}},
		map[string]at{"a": {-100, 10, 200, .95}, "b": {-100, 10, 190, .1}})
	if diff := cmp.Diff(map[string]float64{"app": .95}, w.values(metric(t, "db_pool_utilization"), "")); diff != "" {
		t.Errorf("pool: %s", diff)
	}
	if diff := cmp.Diff(map[string]float64{"app": .1}, w.values(metric(t, "db_pool_utilization"), "b")); diff != "" {
		t.Errorf("pool of b: %s", diff)
	}
	if got := w.values(metric(t, "api_throughput"), "b")[""]; got != 190./60 {
		t.Errorf("throughput of b: %v a second, want 190 in a minute", got)
	}
	if got := w.values(metric(t, "cache_evictions"), "")["r1"]; got != 200./60 {
		t.Errorf("evictions of one server, seen by two: %v a second, want 200 in a minute", got)
	}
}

// What others have stored may be read twice: that is no second scrape.
func TestWindowKnowsASnapshotAgain(t *testing.T) {
	w := windowOf(time.Minute,
		map[string]at{"a": {-100, 0, 0, 0}},
		map[string]at{"a": {-100, 10, 100, 0}},
		map[string]at{"a": {-100, 10, 100, 0}})
	if n := w.observations(""); n != 2 {
		t.Errorf("%d samples of two snapshots", n)
	}
	// 100 in 10 s, from zero, and going on until now.
	if got := w.values(metric(t, "api_throughput"), "")[""]; got != 100.*(10+0+10)/10/60 {
		t.Errorf("throughput %v, want 3.33", got)
	}
}

// A snapshot is read up to an interval after it was taken. That the delay varies must not bend rates.
func TestWindowUsesTheTimeOfTheSnapshot(t *testing.T) {
	w := newWindow(KeyMetrics().Rows, time.Minute, false)
	throughput := metric(t, "api_throughput")
	const skew = 3_600_000
	for i, late := range []int64{0, 4000, 1000, 4000, 0, 2000, 4000} {
		at := epoch.Add(time.Duration(i) * 10 * time.Second)
		taken := at.UnixMilli() - late
		r := &reading{Started: skew - 1e9, At: taken + skew, Points: points{}}
		r.Points.at(throughput.ID, "", 1)[0] = float64(taken-epoch.UnixMilli()) + 1e9 // one a millisecond
		w.add(frame{at: at, readings: map[string]*reading{"a": r}})
	}
	if got := w.values(throughput, "")[""]; math.Abs(got-1000) > 1e-6 {
		t.Errorf("throughput %v, want 1000", got)
	}
}

// The first snapshot came four seconds late. When the next ones are not, it is known that they are of now: what they
// count leaves the window when it should.
func TestWindowLearnsThatTheFirstSnapshotWasLate(t *testing.T) {
	w := newWindow(KeyMetrics().Rows, time.Minute, false)
	w.see(4, map[string]at{"a": {-1000, 0, 0, 0}})
	w.see(10, map[string]at{"a": {-1000, 10, 0, 0}})
	for second := 20.; second <= 70; second += 10 {
		w.see(second, map[string]at{"a": {-1000, second, 100, 0}})
	}
	if got := w.values(metric(t, "api_throughput"), "")[""]; math.Abs(got-100./60) > 1e-12 {
		t.Errorf("throughput %v, want 100 in a minute", got)
	}
	w.see(72, map[string]at{"a": {-1000, 72, 100, 0}})
	if got := w.values(metric(t, "api_throughput"), "")[""]; got != 0 {
		t.Errorf("throughput %v, want 0: it was more than a minute ago", got)
	}
}

// How late a snapshot may be is a limit: beyond it a clock was set, and the snapshot is taken for new.
func TestWindowTellsLatenessFromAClockThatWasSet(t *testing.T) {
	for late, want := range map[float64]float64{
		60:     100. * (10 + 5) / 10 / 300, // the sample is of second 10, and half an interval is added at the end
		60.001: 100. / 300,                 // it is of now
	} {
		w := windowOf(5*time.Minute, map[string]at{"a": {-1000, 0, 0, 0}})
		w.see(10+late, map[string]at{"a": {-1000, 10, 100, 0}})
		if got := w.values(metric(t, "api_throughput"), "")[""]; math.Abs(got-want) > 1e-12 {
			t.Errorf("%v s late: throughput %v, want %v", late, got, want)
		}
	}
}

func TestWindowBeginsAnewWhenTheClockIsSetBack(t *testing.T) {
	w := newWindow(KeyMetrics().Rows, 5*time.Minute, false)
	w.see(100, map[string]at{"a": {-1000, 100, 50, 0}})
	w.see(110, map[string]at{"a": {-1000, 110, 90, 0}})
	w.see(110, nil) // the same moment is not back
	if got := w.values(metric(t, "api_throughput"), "")[""]; math.Abs(got-40.*(10+5)/10/300) > 1e-12 || w.elapsed() != 10*time.Second {
		t.Errorf("before: throughput %v after %v", got, w.elapsed())
	}
	// What restarts meanwhile has a clock of its own, and counts from its zero.
	w.see(0, map[string]at{"a": {113, 120, 5, 0}})
	if got := w.values(metric(t, "api_throughput"), "")[""]; math.Abs(got-5./300) > 1e-12 || w.elapsed() != 0 {
		t.Errorf("after: throughput %v after %v, want 5 in five minutes after nothing", got, w.elapsed())
	}
}

// Instances come and go for years under names that never return.
func TestWindowForgets(t *testing.T) {
	const length = time.Minute // samples outlive it: gauges count for five minutes
	w := windowOf(length, map[string]at{"gone": {-100, 0, 5, .5}})
	kept := func() bool { return w.sources["gone"] != nil }
	w.see(60, nil)
	if !kept() {
		t.Error("its sample is in the window, and the instance is forgotten")
	}
	w.see(60.001, nil)
	if kept() {
		t.Error("an instance is known that the window has nothing of")
	}
	if n := len(w.groups["api_throughput"]); n != 1 {
		t.Errorf("%d scopes, want the one of which there are samples", n)
	}
	for i := range 120 {
		second := float64(70 + 10*i)
		w.see(second, map[string]at{"a": {-100, second, 5, .5}})
	}
	for id, scopes := range w.groups {
		for scope, g := range scopes {
			if len(g.tracks) != 1 || len(g.tracks[0].times) != 31 || len(g.tracks[0].numbers) != 31 {
				t.Errorf("%s %q: %d tracks, the first with %d samples, want five minutes of one", id, scope, len(g.tracks), len(g.tracks[0].times))
			}
		}
	}
	w.see(2000, nil)
	for id, scopes := range w.groups {
		if len(scopes) != 0 {
			t.Errorf("%s: %d scopes of nobody", id, len(scopes))
		}
	}
	if w.elapsed() != length {
		t.Errorf("the window has seen %v, want its length", w.elapsed())
	}
}

// observations is how often the instance that was read most often was read within the window.
func (w *window) observations(only string) (most int) {
	for _, scopes := range w.groups {
		for _, g := range scopes {
			for _, t := range g.tracks {
				if only == "" || t.instance == only {
					most = max(most, len(t.times)-w.from(t.times, w.latest.at.UnixMilli()))
				}
			}
		}
	}
	return most
}
