package admin

import (
	"context"
	"log/slog"
	"net/http"
	"sort"
	"strconv"
	"sync"
	"time"
)

// Record is the audit record of one write, done or refused. It holds no body, query or secret.
type Record struct {
	// Time is when the request began, in UTC.
	Time time.Time
	// Actor is the caller's name, or "" for one who did not prove to be anybody.
	Actor string
	// Role is the caller's role, or "".
	Role string
	// Operation is the operation's ID.
	Operation string
	// Method and Path are the request's; the path is escaped.
	Method, Path string
	// DryRun reports that nothing was to be changed.
	DryRun bool
	// Status is the answer's HTTP status.
	Status int
	// Duration is how long the request took; background work goes on after it.
	Duration time.Duration
	// Remote is the peer's address.
	Remote string
	// Error is what the client was told, or that the answer was broken off, or "".
	Error string
	// Detail says more of what was done, as the cause of an automatic change, or "".
	Detail string
}

// Record adds what was done without a request, such as read-only mode that tripped by itself, to the audit. Role is what it
// would have taken; Method, Path and Remote are empty.
func (h *Handler) Record(record Record) { h.journal.add(record, false) }

type auditEntry struct {
	Time       time.Time `json:"time"`
	Actor      string    `json:"actor"`
	Role       string    `json:"role,omitempty"`
	Operation  string    `json:"operation"`
	Method     string    `json:"method"`
	Path       string    `json:"path"`
	DryRun     bool      `json:"dry_run"`
	Status     int       `json:"status"`
	DurationMS float64   `json:"duration_ms"`
	Remote     string    `json:"remote"`
	Error      string    `json:"error,omitempty"`
	Detail     string    `json:"detail,omitempty"`
}

type auditReply struct {
	Records []auditEntry `json:"records"`
	// Suppressed counts refused callers who were too many to record.
	Suppressed int64 `json:"suppressed"`
}

// journal keeps the records of whom the guard refused apart, so that they cannot push out those of people who may change
// something.
type journal struct {
	hook func(Record)
	log  *slog.Logger

	mu         sync.Mutex
	known      ring
	refused    ring
	suppressed int64
}

// ring keeps the last records.
type ring struct {
	records []Record
	next    int
	size    int
}

func (r *ring) add(record Record) {
	if len(r.records) < r.size {
		r.records = append(r.records, record)
		return
	}
	r.records[r.next] = record
	r.next = (r.next + 1) % r.size
}

func newJournal(size int, hook func(Record), log *slog.Logger) *journal {
	return &journal{hook: hook, log: log, known: ring{size: size}, refused: ring{size: max(1, size/10)}}
}

func (j *journal) add(record Record, refused bool) {
	if refused && record.Status == http.StatusTooManyRequests {
		j.mu.Lock()
		j.suppressed++
		j.mu.Unlock()
		return
	}
	j.mu.Lock()
	if refused {
		j.refused.add(record)
	} else {
		j.known.add(record)
	}
	j.mu.Unlock()
	level := slog.LevelInfo
	if record.Status >= 400 {
		level = slog.LevelWarn
	}
	j.log.LogAttrs(context.Background(), level, "audit",
		slog.String("actor", record.Actor), slog.String("role", record.Role), slog.String("operation", record.Operation),
		slog.String("method", record.Method), slog.String("path", record.Path), slog.Bool("dry_run", record.DryRun),
		slog.Int("status", record.Status), slog.Duration("duration", record.Duration), slog.String("remote", record.Remote),
		slog.String("error", record.Error), slog.String("detail", record.Detail))
	if j.hook == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			j.log.Error("Options.Audit panicked", slog.Any("panic", p))
		}
	}()
	j.hook(record)
}

func (j *journal) list(_ context.Context, call *Call) (any, error) {
	limit := 100
	if text := call.Query("limit"); text != "" {
		limit, _ = strconv.Atoi(text)
		if limit < 1 {
			return nil, Invalid("limit", "limit has to be 1 or more")
		}
	}
	j.mu.Lock()
	records := append(append([]Record(nil), j.known.records...), j.refused.records...)
	suppressed := j.suppressed
	j.mu.Unlock()
	sort.SliceStable(records, func(a, b int) bool { return records[a].Time.After(records[b].Time) })
	reply := auditReply{Records: []auditEntry{}, Suppressed: suppressed}
	for _, r := range records[:min(limit, len(records))] {
		reply.Records = append(reply.Records, auditEntry{
			Time: r.Time, Actor: r.Actor, Role: r.Role, Operation: r.Operation, Method: r.Method, Path: r.Path, DryRun: r.DryRun,
			Status: r.Status, DurationMS: float64(r.Duration.Microseconds()) / 1000, Remote: r.Remote, Error: r.Error, Detail: r.Detail,
		})
	}
	return reply, nil
}

func (j *journal) operations() []Operation {
	return []Operation{{
		Method: http.MethodGet, Path: "/api/v1/admin/audit", ID: "admin.audit",
		Summary: "Writes of this instance, done and refused, newest first.",
		Params:  []Param{{Name: "limit", In: "query", Type: "integer", Description: "How many records, 100 unless told."}},
		Reply:   auditReply{}, Do: j.list,
	}}
}
