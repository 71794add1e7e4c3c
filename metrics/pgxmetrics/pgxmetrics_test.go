package pgxmetrics_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/pgxmetrics"
)

var shared = pgcluster.NewShared(&pgcluster.Options{})

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }

// each calls f for the children of a series.
func each(t *testing.T, reg *prometheus.Registry, s metrics.Series, f func(labels map[string]string, m *dto.Metric)) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != s.Name {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			f(labels, m)
		}
	}
}

// queries lists "operation ×n", sorted.
func queries(t *testing.T, reg *prometheus.Registry) (lines []string) {
	t.Helper()
	each(t, reg, metrics.DBQueryDuration, func(labels map[string]string, m *dto.Metric) {
		lines = append(lines, fmt.Sprintf("%s ×%d", labels["operation"], m.GetHistogram().GetSampleCount()))
	})
	slices.Sort(lines)
	return lines
}

// value is that of the only child, or -1 where there is none.
func value(t *testing.T, reg *prometheus.Registry, s metrics.Series) float64 {
	t.Helper()
	v := -1.0
	each(t, reg, s, func(labels map[string]string, m *dto.Metric) {
		if labels["pool"] != "leads" || labels["role"] != "primary" {
			t.Errorf("%s of %v", s.Name, labels)
		}
		v = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	})
	return v
}

func newMetrics(t testing.TB, opts *pgxmetrics.Options) (*pgxmetrics.Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m, err := pgxmetrics.New(reg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m, reg
}

// counting is a tracer of the caller's own.
type counting struct{ queries, acquires atomic.Int64 }

func (c *counting) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.queries.Add(1)
	return context.WithValue(ctx, c, "mine")
}

func (c *counting) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(c) != "mine" {
		c.queries.Add(1000)
	}
}

func (c *counting) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	c.acquires.Add(1)
	return ctx
}

func (c *counting) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}

// pool makes a measured pool of one connection.
func pool(t *testing.T, m *pgxmetrics.Metrics, own pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	c := shared.Get(t)
	config, err := pgxpool.ParseConfig(c.Primary().URL(c.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	config.ConnConfig.Tracer = own
	m.Attach(config, "primary")
	p, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestQueries(t *testing.T) {
	m, reg := newMetrics(t, &pgxmetrics.Options{Name: "leads", Operation: func(sql string) string {
		if strings.HasPrefix(sql, "create") {
			return "migrate"
		}
		return ""
	}})
	own := new(counting)
	p := pool(t, m, own)
	ctx := t.Context()
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(p.Exec(ctx, "create table secret_name (n int)"))
	check(p.Exec(ctx, "-- name: AddNumber :exec\ninsert into secret_name values ($1)", 1))
	check(p.Exec(ctx, "insert into secret_name values (7)"))
	check(p.CopyFrom(ctx, pgx.Identifier{"secret_name"}, []string{"n"}, pgx.CopyFromRows([][]any{{2}, {3}})))
	batch := &pgx.Batch{}
	batch.Queue("select 1")
	batch.Queue("-- name: InBatch :one\nselect 2")
	check(nil, p.SendBatch(ctx, batch).Close())
	err := pgx.BeginFunc(ctx, p, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "-- name: Fail :exec\nselect 1/0")
		if err == nil {
			t.Error("1/0 is something")
		}
		return nil
	})
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("the failed transaction ended with %v", err)
	}
	want := []string{"AddNumber ×1", "Fail ×1", "batch ×1", "commit ×1", "copy ×1", "migrate ×1", "query ×1"}
	if diff := cmp.Diff(want, queries(t, reg)); diff != "" {
		t.Error(diff)
	}
	if q, a := own.queries.Load(), own.acquires.Load(); q < 6 || q > 100 || a != 6 {
		t.Errorf("the own tracer saw %d queries and %d acquires", q, a)
	}
}

func TestOperationsAreBounded(t *testing.T) {
	m, reg := newMetrics(t, &pgxmetrics.Options{Name: "leads", MaxOperations: 3})
	tracer := m.Tracer("primary")
	for i := range 1000 {
		ctx := tracer.TraceQueryStart(t.Context(), nil, pgx.TraceQueryStartData{SQL: fmt.Sprintf("-- name: Op%d :one\nselect", i)})
		tracer.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{})
		tracer.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{}) // of something else, with a context that leaked
	}
	if diff := cmp.Diff([]string{"Op0 ×1", "Op1 ×1", "Op2 ×1", "other ×997"}, queries(t, reg)); diff != "" {
		t.Error(diff)
	}
}

func TestSQLIsNoLabel(t *testing.T) {
	m, reg := newMetrics(t, nil)
	tracer := m.Tracer("primary")
	for _, sql := range []string{"select secret", "-- name: a b'; secret", "-- name: secret", "-- name: :secret", "-- name: " + strings.Repeat("secret", 20) + " :one", "-- name: é :one"} {
		tracer.TraceQueryEnd(tracer.TraceQueryStart(t.Context(), nil, pgx.TraceQueryStartData{SQL: sql}), nil, pgx.TraceQueryEndData{})
	}
	if diff := cmp.Diff([]string{"a ×1", "query ×5"}, queries(t, reg)); diff != "" {
		t.Error(diff)
	}
}

func TestQueryExemplar(t *testing.T) {
	m, reg := newMetrics(t, &pgxmetrics.Options{Trace: func(context.Context) string { return "a trace" }})
	tracer := m.Tracer("primary")
	tracer.TraceQueryEnd(tracer.TraceQueryStart(t.Context(), nil, pgx.TraceQueryStartData{SQL: "select"}), nil, pgx.TraceQueryEndData{})
	traced := 0
	each(t, reg, metrics.DBQueryDuration, func(_ map[string]string, m *dto.Metric) {
		for _, b := range m.GetHistogram().GetBucket() {
			traced += len(b.GetExemplar().GetLabel())
		}
	})
	if traced != 1 {
		t.Errorf("%d traces", traced)
	}
}

// While a pool hangs, its waiters and their time must show: pgxpool's statistics show none.
func TestPoolThatHangs(t *testing.T) {
	m, reg := newMetrics(t, &pgxmetrics.Options{Name: "leads"})
	p := pool(t, m, nil)
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error, 1)
	go func() { running <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-running; err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	conn, err := p.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waiting, giveUp := context.WithCancel(ctx)
	waited := make(chan error, 1)
	go func() { _, err := p.Acquire(waiting); waited <- err }()
	eventually(t, "a waiter and its time show, and the pool is full", func() bool {
		return value(t, reg, metrics.DBPoolWaiters) == 1 && value(t, reg, metrics.DBPoolAcquireWait) > 1 &&
			value(t, reg, metrics.DBPoolAcquired) > .9 && value(t, reg, metrics.DBPoolMax) == 1
	})
	if wait := p.Stat().EmptyAcquireWaitTime(); wait > time.Second {
		t.Errorf("pgxpool knows of %v: then this test shows nothing", wait)
	}
	giveUp()
	if err := <-waited; !errors.Is(err, context.Canceled) {
		t.Errorf("the waiter got %v", err)
	}
	conn.Release()
	eventually(t, "the pool is empty", func() bool {
		return value(t, reg, metrics.DBPoolWaiters) == 0 && value(t, reg, metrics.DBPoolAcquired) == 0
	})
	if n := value(t, reg, metrics.DBPoolAcquireTime); n != 2 {
		t.Errorf("%v acquires were measured, want also the one that was given up", n)
	}
}

// waited tells when it is waited for.
type waited struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (w *waited) Done() <-chan struct{} {
	w.once.Do(func() { close(w.waits) })
	return w.Context.Done()
}

// Who got no connection is counted by the reason; who had given up before he asked is not the pool's affair.
func TestFailedAcquires(t *testing.T) {
	m, reg := newMetrics(t, &pgxmetrics.Options{Name: "leads"})
	p := pool(t, m, nil)
	conn, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, end := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer end()
	dead, giveUp := context.WithCancel(t.Context())
	giveUp()
	late, enough := context.WithCancel(t.Context())
	waits := &waited{Context: late, waits: make(chan struct{})}
	go func() { <-waits.waits; enough() }()
	for _, ctx := range []context.Context{short, dead, waits} {
		if c, err := p.Acquire(ctx); err == nil {
			c.Release()
			t.Fatal("a full pool gave a connection")
		}
	}
	conn.Release()
	p.Close()
	if _, err := p.Acquire(t.Context()); err == nil {
		t.Fatal("a closed pool gave a connection")
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, c := range f.GetMetric() {
			for _, l := range c.GetLabel() {
				if f.GetName() == metrics.DBPoolFailures.Name && l.GetName() == "reason" {
					got[l.GetValue()] = c.GetCounter().GetValue()
				}
			}
		}
	}
	if diff := cmp.Diff(map[string]float64{"timeout": 1, "cancelled": 1, "failed": 1}, got); diff != "" {
		t.Error(diff)
	}
}

func TestForget(t *testing.T) {
	m, reg := newMetrics(t, &pgxmetrics.Options{Name: "leads"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := pool(t, m, nil)
	if _, err := p.Exec(ctx, "select 1"); err != nil {
		t.Fatal(err)
	}
	other := m.Tracer("primary") // of a pool that nobody has used
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	eventually(t, "the pool is sampled", func() bool { return value(t, reg, metrics.DBPoolMax) == 1 })
	m.Forget(other)
	if value(t, reg, metrics.DBPoolMax) != 1 {
		t.Error("the pool's series went with another's")
	}
	cancel()
	<-done
}

func TestNewRefusesNonsense(t *testing.T) {
	if _, err := pgxmetrics.New(nil, &pgxmetrics.Options{MaxOperations: -1}); err == nil {
		t.Error("no error")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func BenchmarkQuery(b *testing.B) {
	m, _ := newMetrics(b, nil)
	tracer := m.Tracer("primary")
	ctx := b.Context()
	data := pgx.TraceQueryStartData{SQL: "-- name: GetLead :one\nselect * from leads where id = $1"}
	b.ReportAllocs()
	for b.Loop() {
		tracer.TraceQueryEnd(tracer.TraceQueryStart(ctx, nil, data), nil, pgx.TraceQueryEndData{})
	}
}
