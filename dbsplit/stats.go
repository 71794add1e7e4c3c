package dbsplit

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// maxOperations bounds the label values that callers' statement names can make.
const maxOperations = 200

// instruments are this DB's metrics.
type instruments struct {
	name       string
	acquired   *prometheus.GaugeVec
	max        *prometheus.GaugeVec
	waiters    *prometheus.GaugeVec
	wait       *prometheus.CounterVec
	acquire    *prometheus.HistogramVec
	fleet      *prometheus.GaugeVec
	capacity   *prometheus.GaugeVec
	queries    *prometheus.HistogramVec
	reads      *prometheus.CounterVec
	stale      *prometheus.GaugeVec
	up         *prometheus.GaugeVec
	tokens     [tokenOutcomes]prometheus.Counter
	hedged     [hedgeOutcomes]prometheus.Counter
	shadowed   [shadowOutcomes]prometheus.Counter
	size       *prometheus.GaugeVec
	sampled    *prometheus.GaugeVec
	background *prometheus.CounterVec
	misroutes  misroutes

	mu         sync.Mutex // for writing operations
	operations atomic.Pointer[map[string]prometheus.Observer]
}

func newInstruments(name string, reg prometheus.Registerer) (*instruments, error) {
	var errs []error
	counter := func(s metrics.Series) *prometheus.CounterVec {
		c, err := metrics.NewCounter(reg, s)
		errs = append(errs, err)
		return c
	}
	gauge := func(s metrics.Series) *prometheus.GaugeVec {
		g, err := metrics.NewGauge(reg, s)
		errs = append(errs, err)
		return g
	}
	histogram := func(s metrics.Series) *prometheus.HistogramVec {
		h, err := metrics.NewHistogram(reg, s)
		errs = append(errs, err)
		return h
	}
	in := &instruments{
		name:       name,
		acquired:   gauge(metrics.DBPoolAcquired),
		max:        gauge(metrics.DBPoolMax),
		waiters:    gauge(metrics.DBPoolWaiters),
		wait:       counter(metrics.DBPoolAcquireWait),
		acquire:    histogram(metrics.DBPoolAcquireTime),
		fleet:      gauge(metrics.DBFleetMax),
		capacity:   gauge(metrics.DBServerMax),
		queries:    histogram(metrics.DBQueryDuration),
		reads:      counter(metrics.DBReads),
		stale:      gauge(metrics.DBReplicaStale),
		up:         gauge(metrics.DBNodeUp),
		size:       gauge(metrics.DBSize),
		sampled:    gauge(metrics.SamplerSuccess),
		background: counter(metrics.BackgroundErrors),
	}
	in.misroutes = misroutes{name: name, counter: counter(metrics.DBMisroutes), known: make(map[string]struct{})}
	in.operations.Store(&map[string]prometheus.Observer{})
	tokens := counter(metrics.DBTokens)
	hedged, shadowed := counter(metrics.DBHedgedReads), counter(metrics.DBShadowReads)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for o := range in.tokens {
		in.tokens[o] = tokens.WithLabelValues(name, tokenOutcome(o).String())
	}
	for o := range in.hedged {
		in.hedged[o] = hedged.WithLabelValues(name, hedgeOutcome(o).String())
	}
	for o := range in.shadowed {
		in.shadowed[o] = shadowed.WithLabelValues(name, shadowOutcome(o).String())
	}
	return in, nil
}

// tokenOutcome is what became of a token. It is a label of db_tokens_total.
type tokenOutcome uint8

const (
	tokenCaptured    tokenOutcome = iota // the primary was asked for its position
	tokenObeyed                          // a node was chosen that has it
	tokenUnknown                         // its position could not be learned, so the primary was read
	tokenSettled                         // an unknown one got a position
	tokenAhead                           // of a timeline that was not seen yet
	tokenOldTimeline                     // from before a promotion
	tokenLost                            // from before a promotion that came earlier in the log
	tokenImpossible                      // of a position that the primary has not reached, so it was ignored
	tokenOutcomes
)

func (o tokenOutcome) String() string {
	return [...]string{"captured", "obeyed", "unknown", "settled", "ahead", "old-timeline", "lost", "impossible"}[o]
}

func (in *instruments) token(o tokenOutcome) { in.tokens[o].Inc() }

// forget removes the series of a node that is no more.
func (in *instruments) forget(node string) {
	labels := prometheus.Labels{"db": in.name, "node": node}
	in.up.DeletePartialMatch(labels)
	in.stale.DeletePartialMatch(labels)
	in.fleet.DeletePartialMatch(labels)
	in.capacity.DeletePartialMatch(labels)
}

func (in *instruments) failed(task string) { in.background.WithLabelValues("dbsplit", task).Inc() }

// operation returns the histogram of a statement's operation, or nil for statements that only open or undo
// transactions. It allocates on the first use of a name only.
func (in *instruments) operation(sql, otherwise string) prometheus.Observer {
	name := metrics.OperationName(sql, otherwise)
	if name == "" {
		return nil
	}
	if o, ok := (*in.operations.Load())[name]; ok {
		return o
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	known := *in.operations.Load()
	if len(known) >= maxOperations {
		name = "other"
	}
	if o, ok := known[name]; ok {
		return o
	}
	o := in.queries.WithLabelValues(in.name, strings.Clone(name))
	grown := maps.Clone(known)
	grown[strings.Clone(name)] = o
	in.operations.Store(&grown)
	return o
}
