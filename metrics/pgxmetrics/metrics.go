package pgxmetrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// sampleInterval is what the averages are taken over.
const sampleInterval = time.Second

// Options are New's options.
type Options struct {
	// Name is the label pool of all series, the same as dbsplit's Options.Name. Zero means "db".
	Name string
	// Operation names a statement's operation: a name of the program's, never text of users. Where it returns "", the
	// name in the statement's comment counts. Zero means that only comments name operations.
	Operation func(sql string) string
	// MaxOperations is how many names are told apart; further ones are counted as "other". Zero means 200.
	MaxOperations int
	// Trace returns the id of the trace that a query is part of, or "", as metrics.HTTPOptions.Trace. Zero means none.
	Trace func(context.Context) string
}

// Metrics measures the pools of one database. It is safe for concurrent use.
type Metrics struct {
	name       string
	trace      func(context.Context) string
	operations *Operations

	acquired, max, waiters *prometheus.GaugeVec
	wait, failures         *prometheus.CounterVec
	acquire                *prometheus.HistogramVec

	mu      sync.Mutex
	tracers []*Tracer
}

// New makes the series in reg. A nil reg means counted, not exported. It starts nothing.
func New(reg prometheus.Registerer, opts *Options) (*Metrics, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.Name == "" {
		o.Name = "db"
	}
	if o.MaxOperations == 0 {
		o.MaxOperations = 200
	}
	var errs []error
	if o.MaxOperations < 0 {
		errs = append(errs, fmt.Errorf("pgxmetrics: Options.MaxOperations is %d, give a positive number or 0 for the default", o.MaxOperations))
	}
	gauge := func(s metrics.Series) *prometheus.GaugeVec {
		g, err := metrics.NewGauge(reg, s)
		errs = append(errs, err)
		return g
	}
	m := &Metrics{name: o.Name, trace: o.Trace, acquired: gauge(metrics.DBPoolAcquired), max: gauge(metrics.DBPoolMax), waiters: gauge(metrics.DBPoolWaiters)}
	var err error
	m.wait, err = metrics.NewCounter(reg, metrics.DBPoolAcquireWait)
	errs = append(errs, err)
	m.failures, err = metrics.NewCounter(reg, metrics.DBPoolFailures)
	errs = append(errs, err)
	m.acquire, err = metrics.NewHistogram(reg, metrics.DBPoolAcquireTime)
	errs = append(errs, err)
	queries, err := metrics.NewHistogram(reg, metrics.DBQueryDuration)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	m.operations = &Operations{queries: queries, pool: o.Name, limit: o.MaxOperations, name: o.Operation}
	m.operations.known.Store(&map[string]prometheus.Observer{})
	return m, nil
}

// Attach measures the pool that will be made of config, beside the tracer that config has by then. role is a label, such
// as primary or replica; pools of one role are added up. It returns the pool's tracer.
func (m *Metrics) Attach(config *pgxpool.Config, role string) *Tracer {
	t := m.Tracer(role)
	if own := config.ConnConfig.Tracer; own != nil {
		config.ConnConfig.Tracer = multitracer.New(t, own)
	} else {
		config.ConnConfig.Tracer = t
	}
	return t
}

// Tracer returns a tracer for one pool, for those who compose tracers themselves.
func (m *Metrics) Tracer(role string) *Tracer {
	t := &Tracer{
		operations: m.operations, trace: m.trace, role: role, opened: time.Now(),
		acquire: m.acquire.WithLabelValues(m.name, role),
	}
	for reason := range t.failures {
		t.failures[reason] = m.failures.WithLabelValues(m.name, role, reasons[reason])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tracers = append(m.tracers, t)
	return t
}

// Forget ends the measuring of a pool that is closed.
func (m *Metrics) Forget(t *Tracer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rest []*Tracer
	last := true
	for _, other := range m.tracers {
		if other != t {
			rest = append(rest, other)
			last = last && other.role != t.role
		}
	}
	m.tracers = rest
	if last {
		m.acquired.DeleteLabelValues(m.name, t.role)
		m.max.DeleteLabelValues(m.name, t.role)
		m.waiters.DeleteLabelValues(m.name, t.role)
	}
}

// Run keeps the pools' gauges until ctx ends, and returns nil then.
func (m *Metrics) Run(ctx context.Context) error {
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			m.sample()
		}
	}
}

func (m *Metrics) sample() {
	m.mu.Lock()
	defer m.mu.Unlock()
	sums := map[string]sample{}
	for _, t := range m.tracers {
		s := t.sample()
		if s.most == 0 {
			continue // no connection was ever asked for: nothing is known of the pool
		}
		sum := sums[t.role]
		sums[t.role] = sample{sum.acquired + s.acquired, sum.most + s.most, sum.waiting + s.waiting, sum.waited + s.waited}
	}
	for role, s := range sums {
		m.acquired.WithLabelValues(m.name, role).Set(s.acquired)
		m.max.WithLabelValues(m.name, role).Set(s.most)
		m.waiters.WithLabelValues(m.name, role).Set(s.waiting)
		m.wait.WithLabelValues(m.name, role).Add(s.waited)
	}
}
