package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// instruments are the store's series and its log.
type instruments struct {
	requests, loads, fills, invalidated, evicted, background *prometheus.CounterVec
	waited, refreshes, fallbacks, verified                   *prometheus.CounterVec
	memoryUsed, memoryMax, memoryPolicy, evicting            *prometheus.GaugeVec
	covered                                                  *prometheus.GaugeVec
	residents, residentBytes, broken                         *prometheus.GaugeVec

	log     *slog.Logger
	lastLog atomic.Int64 // Unix nanoseconds of the last throttled record
	muted   atomic.Int64 // throttled records since
}

func newInstruments(o Options) (*instruments, error) {
	in := &instruments{log: o.Logger}
	var errs []error
	counter := func(to **prometheus.CounterVec, s metrics.Series) {
		c, err := metrics.NewCounter(o.Registerer, s)
		*to, errs = c, append(errs, err)
	}
	gauge := func(to **prometheus.GaugeVec, s metrics.Series) {
		g, err := metrics.NewGauge(o.Registerer, s)
		*to, errs = g, append(errs, err)
	}
	counter(&in.requests, metrics.CacheRequests)
	counter(&in.loads, metrics.CacheLoads)
	counter(&in.fills, metrics.CacheFills)
	counter(&in.invalidated, metrics.CacheInvalidated)
	counter(&in.waited, metrics.CacheWaited)
	counter(&in.refreshes, metrics.CacheRefreshes)
	counter(&in.fallbacks, metrics.CacheFallbacks)
	counter(&in.verified, metrics.CacheVerified)
	gauge(&in.covered, metrics.CacheCovered)
	gauge(&in.residents, metrics.CacheResidents)
	gauge(&in.residentBytes, metrics.CacheResidentBytes)
	gauge(&in.broken, metrics.CacheBroken)
	counter(&in.evicted, metrics.CacheEvicted)
	counter(&in.background, metrics.BackgroundErrors)
	gauge(&in.memoryUsed, metrics.CacheMemoryUsed)
	gauge(&in.memoryMax, metrics.CacheMemoryMax)
	gauge(&in.evicting, metrics.CacheEvicting)
	gauge(&in.memoryPolicy, metrics.CacheMemoryPolicy)
	return in, errors.Join(errs...)
}

// breaker notes whether a master is left alone.
func (in *instruments) breaker(addr string, state circuitbreaker.State) {
	value := 0.0
	if state != circuitbreaker.ClosedState {
		value = 1
	}
	in.broken.WithLabelValues(addr).Set(value)
	in.log.Info("cache: circuit breaker", "server", addr, "state", state.String())
}

// failed counts a failure that no caller gets as an error, and logs it at most once a second: during an outage every
// request has one.
func (in *instruments) failed(ctx context.Context, task string, err error, attrs ...any) {
	in.background.WithLabelValues("cache", task).Inc()
	now, last := time.Now().UnixNano(), in.lastLog.Load()
	if now-last < int64(time.Second) || !in.lastLog.CompareAndSwap(last, now) {
		in.muted.Add(1)
		return
	}
	attrs = append(attrs, "task", task, "error", err, "muted", in.muted.Swap(0))
	in.log.WarnContext(ctx, "cache: degraded", attrs...)
}
