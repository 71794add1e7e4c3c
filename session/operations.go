package session

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/scaleaware/scaleaware/admin"
)

// Activity is the reply of GET /api/v1/performance/sessions: what this process has done with sessions since it began. The
// series session_store_operations_total has the same of all processes.
type Activity struct {
	// Since is when the manager was made.
	Since time.Time `json:"since"`
	// Events are counted since then, in this order.
	Events []Event `json:"events"`
}

// Event is one kind of thing that happens to sessions.
type Event struct {
	// ID is logins, deleted, revoked, active, unknown, expired, ended, merged, contended, late, unreadable or
	// unavailable.
	ID string `json:"id"`
	// Title is for people.
	Title string `json:"title"`
	// Count is how often it happened.
	Count int64 `json:"count"`
	// Trouble says that it should not happen, so that any number above 0 is worth a look.
	Trouble bool `json:"trouble"`
}

// eventKinds say which operations and outcomes of the series an event is made of. An empty operation is any.
var eventKinds = []struct {
	event Event
	of    [][2]string
}{
	{Event{ID: "logins", Title: "Log-ins"}, [][2]string{{"enrol", "ok"}}},
	{Event{ID: "deleted", Title: "Sessions deleted, by a log-out or for the new one of a log-in"}, [][2]string{{"delete", "ok"}}},
	{Event{ID: "revoked", Title: "Devices and whole accounts logged out"}, [][2]string{{"revoke", "ok"}}},
	{Event{ID: "active", Title: "Requests with an active session"}, [][2]string{{"find", "hit"}}},
	{Event{ID: "unknown", Title: "Requests whose session is unknown"}, [][2]string{{"find", "miss"}}},
	{Event{ID: "expired", Title: "Requests whose session has expired"}, [][2]string{{"load", "expired"}, {"commit", "expired"}}},
	{Event{ID: "ended", Title: "Requests and log-ins that met a revocation"}, [][2]string{{"load", "revoked"}, {"commit", "revoked"}, {"login", "revoked"}, {"enrol", "revoked"}, {"delete", "revoked"}, {"renew", "revoked"}}},
	{Event{ID: "merged", Title: "Merge conflicts, resolved"}, [][2]string{{"commit", "conflict"}}},
	{Event{ID: "contended", Title: "Merge conflicts, given up", Trouble: true}, [][2]string{{"commit", "contended"}}},
	{Event{ID: "late", Title: "Changes made too late, lost", Trouble: true}, [][2]string{{"put", "late"}, {"token", "late"}}},
	{Event{ID: "unreadable", Title: "Cookies and sessions that cannot be read", Trouble: true}, [][2]string{{"", "malformed"}, {"", "undecodable"}, {"", "undecryptable"}, {"", "unencodable"}}},
	{Event{ID: "unavailable", Title: "Failures of the store", Trouble: true}, [][2]string{{"", "error"}}},
}

// Activity counts what has happened to sessions in this process.
func (m *Manager) Activity() Activity {
	out := Activity{Since: m.since, Events: make([]Event, len(eventKinds))}
	for i, kind := range eventKinds {
		out.Events[i] = kind.event
	}
	children := make(chan prometheus.Metric)
	go func() {
		defer close(children)
		m.commands.Collect(children)
	}()
	for child := range children {
		var c dto.Metric
		if child.Write(&c) != nil {
			continue
		}
		var operation, outcome string
		for _, l := range c.GetLabel() {
			switch l.GetName() {
			case "operation":
				operation = l.GetValue()
			case "outcome":
				outcome = l.GetValue()
			}
		}
		for i, kind := range eventKinds {
			if slices.Contains(kind.of, [2]string{operation, outcome}) || slices.Contains(kind.of, [2]string{"", outcome}) {
				out.Events[i].Count += int64(c.GetCounter().GetValue())
			}
		}
	}
	return out
}

// Operations are the management listener's.
func (m *Manager) Operations() []admin.Operation {
	return []admin.Operation{{
		Method: http.MethodGet, Path: "/api/v1/performance/sessions", ID: "sessions.activity",
		Summary: "Log-ins, log-outs, revocations, merge conflicts and losses of sessions in this process, since it began.",
		Reply:   Activity{},
		Do:      func(context.Context, *admin.Call) (any, error) { return m.Activity(), nil },
	}}
}
