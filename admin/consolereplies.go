package admin

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// consoleReplies are the parts of the operations' replies that the page shows. This package knows operations by their
// paths only, so a field that is missing or new does no harm.
type consoleReplies struct {
	Dashboard   *dashboardReply
	Bottlenecks *bottlenecksReply
	Jobs        *jobsReply
	Cache       *cacheReply
	Sessions    *sessionsReply
	Database    *databaseReply
	ReadOnly    *readOnlyReply
	Audit       *auditReply
	Operations  *operationList
	History     *historyReply
	Health      healthReply

	mu     sync.Mutex
	failed map[string]string
}

func (r *consoleReplies) fail(path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = map[string]string{}
	}
	r.failed[path] = asProblem(err).Detail
}

type dashboardReply struct {
	Alerts    []alertReply
	Metrics   []metricReply
	Instance  string
	Instances []string
	Scope     string
	Degraded  string
	Warming   bool
}

type alertReply struct {
	Labels      map[string]string
	Annotations map[string]string
	State       string
	ActiveAt    time.Time
	Value       float64
	Threshold   float64
	Unit        string
	Why         *struct{ Text string }
}

type metricReply struct {
	ID       string
	Title    string
	Labels   map[string]string
	Value    *float64
	Unit     string
	Op       string
	Warning  *float64
	Critical *float64
	State    string
}

// thresholds returns those of the first metric that fits, with the side that they are on. All scopes of a metric share
// them.
func (d *dashboardReply) thresholds(fits func(metricReply) bool) metricReply {
	if d != nil {
		if i := slices.IndexFunc(d.Metrics, fits); i >= 0 {
			return metricReply{Op: d.Metrics[i].Op, Warning: d.Metrics[i].Warning, Critical: d.Metrics[i].Critical}
		}
	}
	return metricReply{}
}

// level is what the thresholds say of the value.
func (m metricReply) level() string {
	if m.Value == nil || m.Warning == nil || m.Critical == nil {
		return "unknown"
	}
	past := func(threshold float64) bool {
		if m.Op == "below" {
			return *m.Value < threshold
		}
		return *m.Value > threshold
	}
	switch {
	case past(*m.Critical):
		return "critical"
	case past(*m.Warning):
		return "warning"
	}
	return "ok"
}

type bottlenecksReply struct {
	Verdict   string
	Resources []struct {
		Title       string
		Labels      map[string]string
		Utilization *float64
		Ceiling     *float64                   `json:"ceiling_per_second"`
		Saturation  *struct{ Seconds float64 } `json:"time_to_saturation"`
		State       string
		Status      string
		Step        string
	}
}

type jobsReply struct {
	Queues []struct {
		Queue          string
		Waiting        int
		Active         int
		Delayed        int
		Retrying       int
		Failed         int
		Parked         int
		OldestSeconds  *float64 `json:"oldest_waiting_seconds"`
		RunP95Seconds  *float64 `json:"run_p95_seconds"`
		Paused         bool
		DesiredWorkers *int `json:"desired_workers"`
		RateLimit      *struct {
			Max        float64
			PerSeconds float64 `json:"per_seconds"`
		} `json:"rate_limit"`
	}
	Unread []struct{ Queue, Error string }
}

type sessionsReply struct {
	Since  time.Time
	Events []struct {
		Title   string
		Count   int64
		Trouble bool
	}
}

type cacheReply struct {
	WindowSeconds float64 `json:"window_seconds"`
	Total         cacheHits
	Views         map[string]cacheHits
}

type cacheHits struct {
	Lookups  int64
	ByResult map[string]int64 `json:"by_result"`
	Rate     *float64
}

type databaseReply struct{ Nodes []nodeReply }

type nodeReply struct {
	Name      string
	Role      string
	Up        *bool
	LSN       string
	Staleness *int64 `json:"staleness_ns"`
	Inflight  int64
	Latency   int64 `json:"latency_ns"`
	Advice    string
}

type readOnlyReply struct {
	Enabled      bool
	Reason       string
	Actor        string
	Since        time.Time
	Until        time.Time
	Epoch        uint64
	Incident     bool
	Phase        string
	Instances    int
	Acknowledged int
	Missing      []string
	InFlight     int64 `json:"in_flight"`
	Jobs         int64
	Connections  int64
	Tier         string
	Tenants      []string
	Source       string
	Lease        time.Time
	Provable     bool
	Database     *databaseProof
}

type databaseProof struct {
	Quiet    bool
	Fence    uint64
	Numbered uint64 `json:"numbered_since"`
	Waiting  []transactionReply
	Prepared []struct{ Name string }
	Foreign  []transactionReply `json:"foreign_writers"`
	Blind    bool
	Error    string
}

type transactionReply struct {
	PID         int
	Application string
	User        string
}

// String says who it is, as far as that is known.
func (t transactionReply) String() string {
	if t.PID == 0 {
		return "a transaction of nobody known"
	}
	name := t.Application
	if name == "" {
		name = "a program without a name"
	}
	return fmt.Sprintf("%s (process %d, role %s)", name, t.PID, t.User)
}
