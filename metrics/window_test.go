package metrics

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestBucketQuantile(t *testing.T) {
	bounds := []float64{.1, .2, .5}
	for name, test := range map[string]struct {
		q      float64
		counts []float64
		want   float64
	}{
		"exactly at a boundary":   {.95, []float64{0, 95, 100, 100}, .2},
		"one fewer":               {.95, []float64{0, 94, 100, 100}, .25},
		"in the first bucket":     {.5, []float64{100, 100, 100, 100}, .05},
		"above the last boundary": {.95, []float64{0, 0, 0, 100}, .5},
		"empty buckets between":   {.95, []float64{10, 10, 100, 100}, .2 + .3*85/90},
		"at one, the rest far":    {.95, []float64{0, 95, 95, 100}, .2},
		"nothing":                 {.95, []float64{0, 0, 0, 0}, math.NaN()},
	} {
		got := arithmetic{}.bucketQuantile(test.q, bounds, test.counts)
		if math.Abs(got-test.want) > 1e-12 && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// at is one instance's throughput and pool as frames tell it: started and seen in seconds, -1 for not there.
type at struct{ started, second, requests, pool float64 }

func windowOf(length time.Duration, frames ...map[string]at) *window {
	w := newWindow(KeyMetrics().Rows, length, false)
	for i, f := range frames {
		readings := map[string]*reading{}
		for name, a := range f {
			r := &reading{Started: int64(a.started * 1000), At: int64(a.second * 1000), Points: points{}}
			r.Points.at("api_throughput", "", 1)[0] = a.requests
			r.Points.at("db_pool_utilization", "app", 1)[0] = a.pool
			r.Points.at("cache_evictions", "r1", 1)[0] = a.requests
			readings[name] = r
		}
		w.add(frame{epoch.Add(time.Duration(i) * 10 * time.Second), readings, false})
	}
	return &w
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
			for _, name := range w.instances(test.only) {
				for _, sum := range w.gained(name, "api_throughput") {
					got += sum[0]
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

func TestGrowth(t *testing.T) {
	w := newWindow(KeyMetrics().Rows, 5*time.Minute, false)
	growth := metric(t, "db_size_growth")
	for i := range 500 {
		p := points{}
		p.at(growth.ID, "app", 1)[0] = 1e6 + 1000*float64(i) // a minute: 1.44 MB a day
		w.add(frame{at: epoch.Add(time.Duration(i) * time.Minute), readings: map[string]*reading{"a": {At: int64(i), Points: p}}})
		if got, known := w.values(growth, "")["app"]; known != (i >= 5) || known && math.Abs(got-1.44e6) > 1 {
			t.Fatalf("after %d minutes the growth is %v, known: %v", i, got, known)
		}
	}
	if n := len(w.groups[growth.ID]["app"].tracks[0].slow); n != 73 {
		t.Errorf("%d samples are kept, want those of six hours", n)
	}
}

// gained is what an instance has counted of a metric within the window by scope, without any extrapolation.
func (w *window) gained(instance, id string) map[string][]float64 {
	out := map[string][]float64{}
	for scope, g := range w.groups[id] {
		for _, t := range g.tracks {
			if lo := w.from(t.times, w.latest.at.UnixMilli()); t.instance == instance && lo < len(t.times) {
				sum := make([]float64, t.width)
				t.gain(sum, lo)
				out[scope] = sum
			}
		}
	}
	return out
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
