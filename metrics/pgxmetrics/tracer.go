package pgxmetrics

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// Tracer watches one pool. It implements pgx's query, batch and copy tracers and pgxpool's acquire and release tracers.
type Tracer struct {
	operations *Operations
	trace      func(context.Context) string
	role       string
	opened     time.Time
	acquire    prometheus.Observer
	failures   [len(reasons)]prometheus.Counter
	pool       atomic.Pointer[pgxpool.Pool] // known since the first acquire
	held       usage
	waiting    usage
}

var (
	_ pgx.QueryTracer       = (*Tracer)(nil)
	_ pgx.BatchTracer       = (*Tracer)(nil)
	_ pgx.CopyFromTracer    = (*Tracer)(nil)
	_ pgxpool.AcquireTracer = (*Tracer)(nil)
	_ pgxpool.ReleaseTracer = (*Tracer)(nil)
)

// reasons are why callers got no connection.
var reasons = [...]string{"timeout", "cancelled", "failed"}

const (
	timeout = iota
	cancelled
	failed
)

func reasonOf(err error) int {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return timeout
	case errors.Is(err, context.Canceled):
		return cancelled
	}
	return failed
}

type (
	queryKey   struct{}
	acquireKey struct{}
)

// querying and acquiring are contexts that say when a call began. Each is one allocation, where a context.WithValue of it is
// two, and of 48 bytes at most.
type querying struct {
	context.Context
	operation prometheus.Observer
	begun     time.Duration // since the tracer was made: the monotonic clock alone is cheaper to read
}

// Value implements context.Context.
func (q *querying) Value(key any) any {
	if key == (queryKey{}) {
		return q
	}
	return q.Context.Value(key)
}

type acquiring struct {
	context.Context
	begun time.Duration
	dead  bool // before it began
}

// Value implements context.Context.
func (a *acquiring) Value(key any) any {
	if key == (acquireKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// seconds is Duration.Seconds with one division for three.
func seconds(d time.Duration) float64 { return float64(d) / 1e9 }

func (t *Tracer) begin(ctx context.Context, sql, otherwise string) context.Context {
	operation := t.operations.Of(sql, otherwise)
	if operation == nil {
		return ctx
	}
	return &querying{ctx, operation, time.Since(t.opened)}
}

func (t *Tracer) end(ctx context.Context) {
	begun, ok := ctx.(*querying) // where nobody else's tracer has made a context of it
	if !ok {
		begun, ok = ctx.Value(queryKey{}).(*querying)
	}
	if !ok || begun.operation == nil {
		return
	}
	operation := begun.operation
	begun.operation = nil // what is called with this context later is not this query
	took := seconds(time.Since(t.opened) - begun.begun)
	if t.trace == nil {
		operation.Observe(took)
		return
	}
	metrics.ObserveTraced(operation, took, t.trace(ctx))
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return t.begin(ctx, data.SQL, "query")
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *Tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) { t.end(ctx) }

// TraceBatchStart implements pgx.BatchTracer.
func (t *Tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return t.begin(ctx, "", "batch")
}

// TraceBatchQuery implements pgx.BatchTracer. A batch is one operation.
func (t *Tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (t *Tracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchEndData) { t.end(ctx) }

// TraceCopyFromStart implements pgx.CopyFromTracer.
func (t *Tracer) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	return t.begin(ctx, "", "copy")
}

// TraceCopyFromEnd implements pgx.CopyFromTracer.
func (t *Tracer) TraceCopyFromEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceCopyFromEndData) {
	t.end(ctx)
}

// TraceAcquireStart implements pgxpool.AcquireTracer.
func (t *Tracer) TraceAcquireStart(ctx context.Context, pool *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	if t.pool.Load() != pool {
		t.pool.Store(pool)
	}
	now := time.Since(t.opened)
	t.waiting.add(1, now)
	return &acquiring{ctx, now, ctx.Err() != nil}
}

// TraceAcquireEnd implements pgxpool.AcquireTracer.
func (t *Tracer) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, data pgxpool.TraceAcquireEndData) {
	now := time.Since(t.opened)
	t.waiting.add(-1, now)
	if data.Conn != nil {
		t.held.add(1, now)
	}
	begun, ok := ctx.Value(acquireKey{}).(*acquiring)
	if data.Err != nil && !(ok && begun.dead) {
		t.failures[reasonOf(data.Err)].Inc()
	}
	if ok {
		t.acquire.Observe(seconds(now - begun.begun))
	}
}

// TraceRelease implements pgxpool.ReleaseTracer.
func (t *Tracer) TraceRelease(*pgxpool.Pool, pgxpool.TraceReleaseData) {
	t.held.add(-1, time.Since(t.opened))
}

// sample is what a pool did since the last one.
type sample struct {
	acquired, most  float64 // connections
	waiting, waited float64 // callers now, seconds
}

func (t *Tracer) sample() sample {
	pool := t.pool.Load()
	if pool == nil {
		return sample{}
	}
	stat := pool.Stat()
	now := time.Since(t.opened)
	_, acquired, _ := t.held.sample(now)
	t.held.correct(int64(stat.AcquiredConns()), now) // connections that were hijacked, or taken while idle, went by unnoticed
	waiting, _, waited := t.waiting.sample(now)
	return sample{acquired, float64(stat.MaxConns()), float64(waiting), waited.Seconds()}
}
