package main_test

import (
	"encoding/json"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/promserver"
	"github.com/scaleaware/scaleaware/metrics"
)

const dashboardPath = "/api/v1/performance/capacity/dashboard"

// tolerated is how long an alert may fire on one side only: two evaluations and a scrape.
const tolerated = 2*alertInterval + scrapeEvery

// writeOverride writes one override of a thresholds file, with the same time for both severities and none after the end.
func writeOverride(t *testing.T, w io.Writer, id string, o metrics.Override, due time.Duration) {
	t.Helper()
	values := map[string]float64{"warning_for_seconds": due.Seconds(), "critical_for_seconds": due.Seconds(), "keep_firing_for_seconds": 0}
	if o.Warning != nil && o.Critical != nil {
		values["warning"], values["critical"] = *o.Warning, *o.Critical
	}
	blob, err := json.Marshal(map[string]any{id: values})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(blob[1 : len(blob)-1]); err != nil {
		t.Fatal(err)
	}
}

// targets are what Prometheus scrapes: an address for each process that stays the same when it is started anew.
func targets(t *testing.T, p *platform) (addrs []string) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	scrape := func(find func(lead.Platform) string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s, err := p.read()
			if err != nil || find(s) == "" {
				http.Error(w, "it is down", http.StatusServiceUnavailable)
				return
			}
			req, err := http.NewRequestWithContext(r.Context(), r.Method, find(s)+r.URL.Path, nil)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			req.Header.Set("Accept", r.Header.Get("Accept"))
			res, err := transport.RoundTrip(req)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer res.Body.Close()
			w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
			w.WriteHeader(res.StatusCode)
			_, _ = io.Copy(w, res.Body) // whoever asked sees that it is cut off
		}))
		t.Cleanup(server.Close)
		addrs = append(addrs, strings.TrimPrefix(server.URL, "http://"))
	}
	s := p.state(t)
	scrape(func(lead.Platform) string { return s.Admin })
	for _, process := range s.Processes {
		scrape(func(now lead.Platform) string {
			for _, p := range now.Processes {
				if p.Name == process.Name && p.Admin != "" {
					return "http://" + p.Admin
				}
			}
			return ""
		})
	}
	return addrs
}

// seen is what fires in Prometheus and on the dashboard.
type seen struct {
	there, here []string
	whole       bool     // the dashboard is about all of the fleet
	undecided   []string // of these, by values at their thresholds
}

// fires and ends are about alerts whose name begins so, on both sides.
func fires(name string) func(seen) bool {
	return func(s seen) bool { return has(s.there, name) && has(s.here, name) }
}

func ends(name string) func(seen) bool {
	return func(s seen) bool { return !has(s.there, name) && !has(s.here, name) }
}

func has(alerts []string, name string) bool {
	return slices.ContainsFunc(alerts, func(a string) bool { return strings.HasPrefix(a, name) })
}

// moment is the last evaluation of each side, by its number and its own time.
type moment struct {
	there, here           time.Time
	ticksThere, ticksHere int
}

// watcher looks at both sides and fails the test when they disagree for long.
type watcher struct {
	t          *testing.T
	table      metrics.Table
	prometheus *promserver.Server
	dashboard  string
	strict     bool // from now on
	first      time.Time
	now        moment
	last       seen
	since      map[string]moment // alerts that fire on one side only
	longest    time.Duration
	looks      int
	degraded   int
}

// until looks until everything holds at once, on a dashboard that is about all of the fleet.
func (w *watcher) until(what string, all ...func(seen) bool) {
	w.t.Helper()
	began := time.Now()
	eventually(w.t, 90*time.Second, what, func() bool {
		now := w.look()
		return now.whole && !slices.ContainsFunc(all, func(holds func(seen) bool) bool { return !holds(now) })
	})
	w.t.Logf("%s: after %v", what, time.Since(began).Round(100*time.Millisecond))
}

// evaluatedFor is how long Prometheus has been evaluating under the watcher's eyes.
func (w *watcher) evaluatedFor() time.Duration { return w.now.there.Sub(w.first) }

func (w *watcher) look() seen {
	w.t.Helper()
	alerts, evaluated := w.there()
	board := call[struct {
		Time            time.Time
		Scope, Degraded string
		Alerts          []alert
	}](w.t, "GET", w.dashboard, "")
	now := seen{firing(alerts), firing(board.Alerts), board.Scope == "fleet" && board.Degraded == "", w.undecided(slices.Concat(alerts, board.Alerts))}
	w.looks++
	if !evaluated.Equal(w.now.there) {
		w.now.there, w.now.ticksThere = evaluated, w.now.ticksThere+1
	}
	if !board.Time.Equal(w.now.here) {
		w.now.here, w.now.ticksHere = board.Time, w.now.ticksHere+1
	}
	if !slices.Equal(now.there, w.last.there) || !slices.Equal(now.here, w.last.here) {
		w.t.Logf("Prometheus %v, dashboard %v %s", now.there, now.here, board.Degraded)
		w.last = now
	}
	if w.first.IsZero() {
		w.first = evaluated
	}
	switch {
	case !w.strict:
	case !now.whole: // it says itself that it does not know all
		w.degraded++
		clear(w.since)
	default:
		w.compare(now)
	}
	return now
}

func (w *watcher) compare(now seen) {
	w.t.Helper()
	differ := func(a string) bool {
		return !slices.Contains(now.undecided, a) && slices.Contains(now.there, a) != slices.Contains(now.here, a)
	}
	maps.DeleteFunc(w.since, func(a string, _ moment) bool { return !differ(a) })
	for _, a := range slices.Concat(now.there, now.here) {
		if !differ(a) {
			continue
		}
		since, known := w.since[a]
		if !known {
			w.since[a] = w.now
			continue
		}
		lasted := min(w.now.there.Sub(since.there), w.now.here.Sub(since.here))
		w.longest = max(w.longest, lasted)
		if lasted > tolerated && min(w.now.ticksThere-since.ticksThere, w.now.ticksHere-since.ticksHere) > 2 {
			w.t.Fatalf("%s fires on one side only since %v: Prometheus %v, dashboard %v", a, lasted, now.there, now.here)
		}
	}
}

// alert is one of either side.
type alert struct {
	Labels map[string]string
	State  string
	Value  float64
}

// margin is how near to its threshold a value is at which the differences that metrics lists, such as the first event of
// a series, decide: two of the few slow queries that a busy machine has by itself.
const margin = .3

// close says whether a value is at a threshold of its metric.
func (w *watcher) close(a alert) bool {
	m, _ := w.table.Row(a.Labels["metric"])
	return slices.ContainsFunc(m.Thresholds(), func(bound metrics.Threshold) bool {
		return bound.Severity.String() == a.Labels["severity"] && math.Abs(a.Value/bound.Value-1) <= margin
	})
}

func (w *watcher) there() (alerts []alert, evaluated time.Time) {
	w.t.Helper()
	evaluated, err := w.prometheus.Evaluated(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := w.prometheus.Alerts(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range list {
		value, err := strconv.ParseFloat(a.Value, 64)
		if err != nil {
			w.t.Fatal(err)
		}
		alerts = append(alerts, alert{a.Labels, a.State, value})
	}
	return alerts, evaluated
}

func (w *watcher) undecided(alerts []alert) []string {
	return firing(slices.DeleteFunc(alerts, func(a alert) bool { return !w.close(a) }))
}

// firing names the alerts that fire, but for those that only Prometheus can raise: it alone sees what cannot be reached.
func firing(alerts []alert) []string {
	names := []string{}
	for _, a := range alerts {
		if a.State != "firing" || slices.Contains([]string{"target_down", "sampler_vanished", "nothing_exported"}, a.Labels["metric"]) {
			continue
		}
		name := a.Labels["alertname"] + " " + a.Labels["severity"]
		for _, label := range slices.Sorted(maps.Keys(a.Labels)) {
			if !slices.Contains([]string{"alertname", "severity", "metric"}, label) {
				name += " " + label + "=" + a.Labels[label]
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
