package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// soakThresholds are crossed by what takes a server away for seconds, and not by two busy cores under the race detector.
const soakThresholds = `{
	"api_throughput":      {"warning": 10000, "critical": 100000},
	"api_error_rate":      {"warning": 0.01, "critical": 0.9},
	"api_latency_p95":     {"warning": 1, "critical": 2.5},
	"api_latency_p99":     {"warning": 1.5, "critical": 3},
	"db_pool_utilization": {"warning": 0.7, "critical": 0.9},
	"db_query_time":       {"warning": 1, "critical": 2.5},
	"db_slow_queries":     {"warning": 100, "critical": 100000},
	"cache_hit_rate":      {"warning": 0.002, "critical": 0.001},
	"queue_depth":         {"warning": 300, "critical": 1500},
	"job_failed_rate":     {"warning": 0.9, "critical": 0.95}
}`

// lasting is how long a fault must last to raise its alarm for sure: an alert is due after three seconds, two ticks later at
// most, and the window behind it remembers the errors for fifteen.
const lasting = 5 * time.Second

// alarms remembers what fires on the fleet's dashboard, and when.
type alarms struct {
	s     *soak
	mu    sync.Mutex
	fired map[string][]time.Time
	last  []string
}

func (s *soak) watchAlarms() *alarms {
	a := &alarms{s: s, fired: map[string][]time.Time{}}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-s.quit:
				return
			case <-time.After(time.Second):
				a.look()
			}
		}
	}()
	s.t.Cleanup(func() {
		if !s.hasQuit() {
			close(s.quit)
		}
		<-stopped
	})
	return a
}

func (s *soak) hasQuit() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

// look notes what fires now, and says whether the dashboard told.
func (a *alarms) look() bool {
	status, reply := a.s.operate("GET", dashboardPath)
	var board struct{ Alerts []alert }
	if status != http.StatusOK || json.Unmarshal([]byte(reply), &board) != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = nil
	for _, alert := range board.Alerts {
		if alert.State != "firing" {
			continue
		}
		name := alert.Labels["alertname"]
		a.last = append(a.last, name)
		a.fired[name] = append(a.fired[name], time.Now())
	}
	return true
}

// expect waits until a fault that lasted for long has raised one of its alerts.
func (a *alarms) expect(f fault, began time.Time, lasted time.Duration) {
	if len(f.alarm) == 0 || lasted < lasting {
		return
	}
	for deadline := time.Now().Add(15 * time.Second); !a.raised(f.alarm, began); <-time.After(200 * time.Millisecond) {
		if a.s.isBroken() {
			return
		}
		if time.Now().After(deadline) {
			a.s.violate(nil, "%s lasted for %v and raised no alert of %s; fired until now: %v", f.name, lasted.Round(time.Millisecond), strings.Join(f.alarm, ", "), a.names())
			return
		}
	}
	a.s.count("alarms")
}

// raised says whether an alert whose name begins so has fired since.
func (a *alarms) raised(names []string, since time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, times := range a.fired {
		if slices.ContainsFunc(names, func(begin string) bool { return strings.HasPrefix(name, begin) }) && times[len(times)-1].After(since) {
			return true
		}
	}
	return false
}

func (a *alarms) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.fired))
}

// silent looks whether nothing fires.
func (a *alarms) silent() (bool, string) {
	if !a.look() {
		return false, "the dashboard does not answer"
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.last) == 0, fmt.Sprintf("%v fire", a.last)

}
