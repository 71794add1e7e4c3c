package metrics

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Native histograms without limits grow with whatever values come.
const (
	nativeFactor  = 1.1 // of a bucket's bounds
	nativeBuckets = 160
	nativeReset   = time.Hour
)

// NewCounter makes the counter that s describes and registers it with reg. A nil reg means counted, not exported.
// Where the registry already has it, the existing one is returned, so that two values of one package share it.
// It panics when s is not a counter: the table is constant, no input can cause that.
func NewCounter(reg prometheus.Registerer, s Series) (*prometheus.CounterVec, error) {
	s.must(Counter)
	return register(reg, s, prometheus.NewCounterVec(prometheus.CounterOpts{Name: s.Name, Help: s.Help}, s.Labels))
}

// NewGauge is NewCounter for a gauge.
func NewGauge(reg prometheus.Registerer, s Series) (*prometheus.GaugeVec, error) {
	s.must(Gauge)
	return register(reg, s, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: s.Name, Help: s.Help}, s.Labels))
}

// NewHistogram is NewCounter for a histogram with the row's buckets, or those of the table whose [Table.Registerer]
// reg is.
func NewHistogram(reg prometheus.Registerer, s Series) (*prometheus.HistogramVec, error) {
	s.must(Histogram)
	opts := prometheus.HistogramOpts{Name: s.Name, Help: s.Help, Buckets: s.Buckets}
	if t, ok := reg.(*tableRegisterer); ok {
		opts.Buckets = t.table.buckets(s)
		if t.table.Native {
			opts.NativeHistogramBucketFactor = nativeFactor
			opts.NativeHistogramMaxBucketNumber = nativeBuckets
			opts.NativeHistogramMinResetDuration = nativeReset
		}
	}
	return register(reg, s, prometheus.NewHistogramVec(opts, s.Labels))
}

// Desc describes the series to a collector that reads its values when it is asked, with some labels' values given.
func (s Series) Desc(given prometheus.Labels) *prometheus.Desc {
	var labels []string
	for _, label := range s.Labels {
		if _, ok := given[label]; !ok {
			labels = append(labels, label)
		}
	}
	return prometheus.NewDesc(s.Name, s.Help, labels, given)
}

func (s Series) must(kind Kind) {
	if s.Kind != kind {
		panic("metrics: " + s.Name + " is of another kind in the contract")
	}
}

func register[C prometheus.Collector](reg prometheus.Registerer, s Series, c C) (C, error) {
	if reg == nil {
		return c, nil
	}
	err := reg.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("metrics: register %s, give the packages a registry of their own: %w", s.Name, err)
	}
	return c, nil
}
