package metrics

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Bottlenecks is the reply of GET /api/v1/performance/capacity/bottlenecks.
type Bottlenecks struct {
	// Verdict is one line: what limits first and at which throughput, or "not enough data".
	Verdict string `json:"verdict"`
	// Throughput is of HTTP requests per second, or null when there were none.
	Throughput *float64 `json:"throughput_per_second"`
	// Resources are ranked: first the one that limits first, last those of which too little is known.
	Resources []Resource `json:"resources"`
	About
}

// Resource is something that requests use up.
type Resource struct {
	// ID is cpu, db_pool, workers, cache_memory or http_requests.
	ID string `json:"id"`
	// Title is for people.
	Title string `json:"title"`
	// Labels tell resources of one kind apart.
	Labels map[string]string `json:"labels"`
	// Utilization is the used part of 1, the mean over the window of the busiest instance.
	Utilization *float64 `json:"utilization"`
	// Headroom is the part still free.
	Headroom *float64 `json:"headroom"`
	// Ceiling is the throughput of HTTP requests per second at which the resource is used up, by the utilization
	// law: throughput over utilization. It supposes the present mix of requests. Null where it cannot be told.
	Ceiling *float64 `json:"ceiling_per_second"`
	// State is what the thresholds say of Utilization; ok where there are none.
	State Level `json:"state"`
	// Status is ok, or why Ceiling cannot be told, beginning with "not enough data".
	Status string `json:"status"`
	// Evidence are the observations behind it.
	Evidence []string `json:"evidence"`
	// Step is what the runbook says to do.
	Step string `json:"step"`
}

const (
	notEnough = "not enough data"
	// Below these a ceiling would be a guess.
	leastFrames      = 20
	leastRequests    = 100
	leastUtilization = .05

	stepCPU     = "Vertical Scaling: above 70 % consistently, give it more cores or add API instances."
	stepWorkers = "Queue Backlog: add workers or raise their concurrency."
	stepHTTP    = "High Load Incident: put a limit on concurrent requests, so that it can be told how far away it is."
)

func (w *window) bottlenecks(table []KeyMetric, only string, about About) Bottlenecks {
	out := Bottlenecks{Verdict: notEnough, Resources: []Resource{}, About: about}
	requests := 0.0
	var memory, pool KeyMetric
	for _, m := range table {
		switch m.ID {
		case "api_throughput":
			for _, name := range w.instances(only) {
				if sum := w.gained(name, m.ID)[""]; sum != nil {
					requests += sum[0]
				}
			}
			if requests > 0 && about.WindowSeconds > 0 {
				rate := requests / about.WindowSeconds
				out.Throughput = &rate
			}
		case "db_pool_utilization":
			pool = m
		case "cache_memory":
			memory = m
		}
	}
	list := w.cpu(only)
	list = append(list, w.shares("db_pool", pool, only)...)
	list = append(list, w.workers(only)...)
	list = append(list, w.shares("cache_memory", memory, only)...)
	list = append(list, w.active(only)...)
	for i := range list {
		list[i].rate(out.Throughput, requests, w.observations(only))
	}
	slices.SortStableFunc(list, func(a, b Resource) int {
		return cmp.Or(
			cmp.Compare(orInf(a.Ceiling), orInf(b.Ceiling)),
			cmp.Compare(-orZero(a.Utilization), -orZero(b.Utilization)),
		)
	})
	out.Resources = append(out.Resources, list...)
	if len(list) > 0 && list[0].Ceiling != nil {
		out.Verdict = fmt.Sprintf("%s limits first, at about %.0f requests/s (now %.0f)", list[0].name(), *list[0].Ceiling, *out.Throughput)
	}
	return out
}

// rate completes a resource whose utilization and evidence are known.
func (r *Resource) rate(throughput *float64, requests float64, frames int) {
	r.Status = "ok"
	if r.Utilization == nil {
		r.Status, r.State = notEnough+": its limit is not known", Unknown
		return
	}
	headroom := max(0, 1-*r.Utilization)
	r.Headroom = &headroom
	switch {
	case r.ID == "cache_memory":
		r.Status = "ok: what it holds does not follow throughput, so that it has no ceiling in requests"
	case frames < leastFrames:
		r.Status = fmt.Sprintf("%s: %d observations, %d are needed", notEnough, frames, leastFrames)
	case requests < leastRequests:
		r.Status = fmt.Sprintf("%s: %.0f requests in the window, %d are needed", notEnough, requests, leastRequests)
	case *r.Utilization < leastUtilization:
		r.Status = fmt.Sprintf("%s: %.1f %% utilization is too little to tell the ceiling from", notEnough, 100**r.Utilization)
	default:
		ceiling := *throughput / *r.Utilization
		r.Ceiling = &ceiling
	}
}

func (r *Resource) name() string {
	for _, v := range r.Labels {
		return r.Title + " " + v
	}
	return r.Title
}

// shares makes resources of a metric that is a utilization already.
func (w *window) shares(id string, m KeyMetric, only string) []Resource {
	var list []Resource
	for scope := range w.values(m, only) {
		mean, n := w.mean(m.ID, scope, only)
		list = append(list, Resource{
			ID: id, Title: m.Title, Labels: m.labels(scope), Utilization: &mean, State: m.Level(mean), Step: m.Step,
			Evidence: []string{fmt.Sprintf("%.1f %% on average over %d observations of the busiest instance", 100*mean, n)},
		})
	}
	slices.SortFunc(list, func(a, b Resource) int { return cmp.Compare(a.name(), b.name()) })
	return list
}

func (w *window) cpu(only string) []Resource {
	busiest, at, seconds := 0.0, "", w.elapsed().Seconds()
	for _, name := range w.instances(only) {
		r := w.newest().readings[name]
		if r == nil || r.Points[pointCPU][""] == nil || seconds == 0 {
			continue
		}
		used := w.gained(name, pointCPU)[""]
		if cores := r.Points[pointCPU][""][1]; cores > 0 && (at == "" || used[0]/seconds/cores > busiest) {
			busiest, at = used[0]/seconds/cores, name
		}
	}
	if at == "" {
		return nil
	}
	state := OK
	if busiest > .7 {
		state = Warning
	}
	return []Resource{{
		ID: "cpu", Title: "CPU", Labels: map[string]string{"instance": at}, Utilization: &busiest, State: state, Step: stepCPU,
		Evidence: []string{fmt.Sprintf("%.1f %% of its cores in %.0f s", 100*busiest, seconds)},
	}}
}

func (w *window) workers(only string) []Resource {
	worked, slots, seconds := 0.0, 0.0, w.elapsed().Seconds()
	for _, name := range w.instances(only) {
		if sum := w.gained(name, pointWorkers)[""]; sum != nil {
			worked += sum[0]
		}
		if r := w.newest().readings[name]; r != nil && r.Points[pointWorkers][""] != nil {
			slots += r.Points[pointWorkers][""][1]
		}
	}
	if slots == 0 || seconds == 0 {
		return nil
	}
	busy := worked / seconds // Little's law
	utilization := math.Min(1, busy/slots)
	return []Resource{{
		ID: "workers", Title: "Workers", Labels: map[string]string{}, Utilization: &utilization, State: OK, Step: stepWorkers,
		Evidence: []string{fmt.Sprintf("%.1f of %.0f slots busy on average over %.0f s", busy, slots, seconds)},
	}}
}

func (w *window) active(only string) []Resource {
	active, known := 0.0, false
	for name, r := range w.newest().readings {
		if p := r.Points[pointActive][""]; p != nil && (only == "" || name == only) {
			active, known = active+p[0], true
		}
	}
	if !known {
		return nil
	}
	return []Resource{{
		ID: "http_requests", Title: "HTTP requests being served", Labels: map[string]string{}, Step: stepHTTP,
		Evidence: []string{fmt.Sprintf("%.0f now; no limit is known", active)},
	}}
}

func orInf(v *float64) float64 {
	if v == nil {
		return math.Inf(1)
	}
	return *v
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
