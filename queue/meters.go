package queue

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

type meters struct {
	tasks      *prometheus.GaugeVec
	oldest     *prometheus.GaugeVec
	desired    *prometheus.GaugeVec
	slots      *prometheus.GaugeVec
	rate       *prometheus.GaugeVec
	enqueued   *prometheus.CounterVec
	limited    *prometheus.CounterVec
	stalled    *prometheus.CounterVec
	dead       *prometheus.CounterVec
	cut        *prometheus.CounterVec
	runs       *metrics.Job
	background *prometheus.CounterVec
}

func newMeters(reg prometheus.Registerer) (*meters, error) {
	m := new(meters)
	errs := make([]error, 12)
	m.tasks, errs[0] = metrics.NewGauge(reg, metrics.QueueTasks)
	m.oldest, errs[1] = metrics.NewGauge(reg, metrics.QueueOldestPending)
	m.desired, errs[2] = metrics.NewGauge(reg, metrics.QueueDesiredWorkers)
	m.enqueued, errs[3] = metrics.NewCounter(reg, metrics.QueueEnqueued)
	m.limited, errs[4] = metrics.NewCounter(reg, metrics.QueueLimited)
	m.runs, errs[5] = metrics.NewJob(reg, nil)
	m.background, errs[6] = metrics.NewCounter(reg, metrics.BackgroundErrors)
	m.slots, errs[7] = metrics.NewGauge(reg, metrics.QueueWorkerSlots)
	m.stalled, errs[8] = metrics.NewCounter(reg, metrics.QueueStalled)
	m.dead, errs[9] = metrics.NewCounter(reg, metrics.QueueDead)
	m.rate, errs[10] = metrics.NewGauge(reg, metrics.QueueRateLimit)
	m.cut, errs[11] = metrics.NewCounter(reg, metrics.QueueCut)
	return m, errors.Join(errs...)
}
