package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// plain are a series' values with NaN for null.
func plain(t *testing.T, h *History, metric string) []float64 {
	t.Helper()
	for _, s := range h.Series {
		if s.Metric == metric {
			out := make([]float64, len(s.Values))
			for i, v := range s.Values {
				out[i] = math.NaN()
				if v != nil {
					out[i] = *v
				}
			}
			return out
		}
	}
	return nil
}

func alike(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return x == y || math.IsNaN(x) && math.IsNaN(y) })
}

func TestHistoryKeepsStepsWithTheirWorst(t *testing.T) {
	h := newHistory(KeyMetrics(), 5*time.Second, 5*time.Minute)
	if h.step != 10*time.Second {
		t.Fatalf("step %v, want a thirtieth of the window", h.step)
	}
	put := func(second int, values map[string]map[string]float64) {
		h.add(epoch.Add(time.Duration(second)*time.Second), values)
	}
	one := func(id string, v float64) map[string]map[string]float64 {
		return map[string]map[string]float64{id: {"": v}}
	}
	put(0, one("api_latency_p95", .1))
	put(5, one("api_latency_p95", .3)) // above is worse
	put(9, one("api_latency_p95", .2))
	put(10, one("cache_hit_rate", .9))
	put(15, one("cache_hit_rate", .5)) // below is worse
	put(20, one("api_throughput", 1))
	put(22, one("api_throughput", 2))
	put(24, one("api_throughput", 6)) // no thresholds: the mean
	put(26, one("api_throughput", math.NaN()))
	put(21, one("cache_hit_rate", .7)) // a clock that goes back
	put(55, one("api_latency_p95", 1./3))
	got := h.report(time.Time{}, nil, "instance")
	nan := math.NaN()
	for id, want := range map[string][]float64{
		"api_latency_p95": {.3, nan, nan, nan, nan, .333333},
		"cache_hit_rate":  {nan, .5, .7, nan, nan, nan},
		"api_throughput":  {nan, nan, 3, nan, nan, nan},
	} {
		if values := plain(t, got, id); !alike(values, want) {
			t.Errorf("%s: %v, want %v", id, values, want)
		}
	}
	if !got.Start.Equal(epoch) || got.StepSeconds != 10 {
		t.Errorf("starts %v every %v s", got.Start, got.StepSeconds)
	}
	if s := got.Series[0]; s.Metric != "api_latency_p95" || *s.Warning != .2 || *s.Critical != .5 || s.Unit != Seconds {
		t.Errorf("first series: %+v", s)
	}

	since := h.report(epoch.Add(21*time.Second), []string{"cache_hit_rate"}, "instance")
	if !since.Start.Equal(epoch.Add(30*time.Second)) || len(since.Series) != 1 || len(since.Series[0].Values) != 3 {
		t.Errorf("since 21 s: starts %v with %d series", since.Start.Sub(epoch), len(since.Series))
	}
	if late := h.report(epoch.Add(time.Hour), nil, "instance"); len(late.Series) == 0 || len(late.Series[0].Values) != 0 {
		t.Errorf("since a time to come: %d series, want all of them without values", len(late.Series))
	}
}

func TestHistoryForgets(t *testing.T) {
	h := newHistory(KeyMetrics(), 5*time.Second, 5*time.Minute)
	for i := range 2 * keptSteps {
		h.add(epoch.Add(time.Duration(i)*10*time.Second), map[string]map[string]float64{"api_throughput": {"": float64(i)}})
	}
	values := plain(t, h.report(time.Time{}, nil, ""), "api_throughput")
	if len(values) != keptSteps || values[0] != keptSteps || values[keptSteps-1] != 2*keptSteps-1 {
		t.Errorf("%d values from %v to %v", len(values), values[0], values[len(values)-1])
	}
	h.add(epoch.Add(1000*time.Hour), map[string]map[string]float64{"api_throughput": {"": 7}})
	values = plain(t, h.report(time.Time{}, nil, ""), "api_throughput")
	for i, v := range values {
		if last := i == len(values)-1; last && v != 7 || !last && !math.IsNaN(v) {
			t.Fatalf("after 1000 hours value %d is %v", i, v)
		}
	}
}

// A queue's name is a caller's choice, so scopes are bounded; those long gone make room.
func TestHistoryIsBounded(t *testing.T) {
	before := memory()
	h := newHistory(KeyMetrics(), 5*time.Second, 5*time.Minute)
	second := func(from, n int) map[string]map[string]float64 {
		scopes := map[string]float64{}
		for i := range n {
			scopes[fmt.Sprint("q", from+i)] = float64(i)
		}
		return map[string]map[string]float64{"queue_depth": scopes}
	}
	for i := range keptSteps {
		h.add(epoch.Add(time.Duration(i)*10*time.Second), second(0, 1000))
	}
	report := h.report(time.Time{}, nil, "")
	if len(report.Series) != historySeries || report.Dropped == 0 {
		t.Errorf("%d series and %d dropped, want %d", len(report.Series), report.Dropped, historySeries)
	}
	if used := memory() - before; used > 1<<20/2 {
		t.Errorf("one reach's history takes %d bytes; both must stay below 1 MB", used)
	}
	for i := range keptSteps {
		h.add(epoch.Add(time.Duration(keptSteps+i)*10*time.Second), nil)
	}
	h.add(epoch.Add(2*keptSteps*10*time.Second), second(5000, 3))
	if report = h.report(time.Time{}, nil, ""); len(report.Series) != 3 {
		t.Errorf("%d series, want the 3 that live", len(report.Series))
	}
	runtime.KeepAlive(h)
}

func memory() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestHistoryIsAgreed(t *testing.T) {
	h := newHistory(KeyMetrics(), 5*time.Second, 5*time.Minute)
	h.add(epoch, map[string]map[string]float64{"queue_depth": {"mail": 3}})
	h.add(epoch.Add(10*time.Second), nil)
	text, err := json.Marshal(h.report(time.Time{}, nil, "fleet"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"start":"2026-01-01T00:00:00Z","step_seconds":10,"series":[{"metric":"queue_depth","scope":{"queue":"mail"},` +
		`"unit":"jobs","warning":1000,"critical":5000,"values":[3,null]}],"reach":"fleet","dropped":0}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
}
