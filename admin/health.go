package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Check is one thing that readiness depends on.
type Check struct {
	// Name is what probes and people call it. Anybody who can reach /readyz sees it.
	Name string
	// Ready returns nil when it is. It should obey its context; one that does not is reported as failing and is not
	// called again before it has returned.
	Ready func(ctx context.Context) error
	// Optional checks only degrade: /readyz stays 200. Zero means that the instance is unready without it.
	Optional bool
}

// health serves the probes.
type health struct {
	probes []*probe
}

type healthReply struct {
	// Status is ok, degraded or unavailable.
	Status string `json:"status"`
	// Failing are the checks that make it unavailable, Degraded the optional ones that fail.
	Failing  []string `json:"failing,omitempty"`
	Degraded []string `json:"degraded,omitempty"`
	// Excluded are the checks that were not asked, as the caller wished.
	Excluded []string `json:"excluded,omitempty"`
	// Checks are the details, for callers who have shown who they are.
	Checks map[string]checkReply `json:"checks,omitempty"`
}

type checkReply struct {
	Status     string  `json:"status"`
	Optional   bool    `json:"optional"`
	DurationMS float64 `json:"duration_ms"`
	Error      string  `json:"error,omitempty"`
}

func newHealth(checks []Check, timeout time.Duration) *health {
	h := &health{}
	for _, c := range checks {
		h.probes = append(h.probes, &probe{check: c, timeout: timeout})
	}
	return h
}

func (h *health) operations() []Operation {
	params := []Param{
		{Name: "verbose", In: "query", Type: "boolean", Description: "With details of each check. An empty value means true."},
		{Name: "exclude", In: "query", Type: "string", Description: "Checks not to ask, separated by commas; may be repeated."},
	}
	return []Operation{
		{Method: http.MethodGet, Path: "/livez", ID: "admin.livez", Summary: "The process answers. It asks nothing else.",
			Reply: healthReply{}, Handler: http.HandlerFunc(live)},
		{Method: http.MethodGet, Path: "/readyz", ID: "admin.readyz", Summary: "This instance can serve. Read-only mode does not change it.",
			Params: params, Reply: healthReply{}, Handler: http.HandlerFunc(h.ready)},
		{Method: http.MethodGet, Path: "/health", ID: "admin.health", Summary: "Status for people, with the checks for those who may see them.",
			Reply: healthReply{}, Handler: http.HandlerFunc(h.overview)},
	}
}

func live(w http.ResponseWriter, _ *http.Request) { writeHealth(w, healthReply{Status: "ok"}) }

func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var excluded []string
	for _, names := range query["exclude"] {
		for name := range strings.SplitSeq(names, ",") {
			excluded = append(excluded, strings.TrimSpace(name))
		}
	}
	verbose := query.Has("verbose") && query.Get("verbose") != "false" && query.Get("verbose") != "0"
	writeHealth(w, h.ask(r.Context(), excluded, verbose && known(r.Context())))
}

func (h *health) overview(w http.ResponseWriter, r *http.Request) {
	reply := h.ask(r.Context(), nil, known(r.Context()))
	if !known(r.Context()) {
		reply = healthReply{Status: reply.Status}
	}
	writeHealth(w, reply)
}

// ask runs the checks side by side.
func (h *health) ask(ctx context.Context, excluded []string, details bool) healthReply {
	reply := healthReply{Status: "ok"}
	type asking struct {
		*probe
		*flight
	}
	var asked []asking
	var longest time.Duration
	for _, p := range h.probes {
		if slices.Contains(excluded, p.check.Name) {
			reply.Excluded = append(reply.Excluded, p.check.Name)
			continue
		}
		asked = append(asked, asking{p, p.ask(time.Now())})
		longest = max(longest, p.timeout)
	}
	if details {
		reply.Checks = make(map[string]checkReply, len(asked))
	}
	deadline, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	for _, a := range asked {
		reply.add(a.check, a.wait(a.flight, deadline.Done(), ctx.Done()))
	}
	return reply
}

func (r *healthReply) add(c Check, a answer) {
	status := "ok"
	switch {
	case a.err == nil:
	case c.Optional:
		status = "failing"
		r.Degraded = append(r.Degraded, c.Name)
		if r.Status == "ok" {
			r.Status = "degraded"
		}
	default:
		status = "failing"
		r.Failing = append(r.Failing, c.Name)
		r.Status = "unavailable"
	}
	if r.Checks == nil {
		return
	}
	detail := checkReply{Status: status, Optional: c.Optional, DurationMS: float64(a.took.Microseconds()) / 1000}
	if a.err != nil {
		detail.Error = a.err.Error()
	}
	r.Checks[c.Name] = detail
}

func writeHealth(w http.ResponseWriter, reply healthReply) {
	status := http.StatusOK
	if reply.Status == "unavailable" {
		status = http.StatusServiceUnavailable
	}
	data, err := encode(reply)
	if err != nil {
		data = fmt.Appendf(nil, "{\"status\":%q}\n", reply.Status)
	}
	writeJSON(w, "application/json", status, data)
}
