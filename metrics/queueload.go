package metrics

import (
	"errors"
	"fmt"

	dto "github.com/prometheus/client_model/go"
)

// queueLoad is what an instance knows of the work that one queue makes. -1 is what it does not know.
type queueLoad struct {
	Busy float64 `json:"busy"` // slots at work on its jobs, the mean since the snapshot before
	Room float64 `json:"room"` // slots that the jobs of other queues leave
	Done float64 `json:"done"` // jobs per second
	Rate float64 `json:"rate"` // starts per second that the queue's limit allows the whole fleet
}

// queueLoads reads the instance's own from what was gathered.
func (e *examiner) queueLoads(by map[string]*dto.MetricFamily, seconds, worked float64) map[string]queueLoad {
	out := map[string]queueLoad{}
	if slots := gauges(by, QueueWorkerSlots)[""]; slots > 0 {
		jobs := sums(by, JobDuration, func(m *dto.Metric) float64 { return float64(m.GetHistogram().GetSampleCount()) }, "queue")
		for queue, sum := range sums(by, JobDuration, func(m *dto.Metric) float64 { return m.GetHistogram().GetSampleSum() }, "queue") {
			busy, done := e.rate("worked for "+queue, sum, seconds), e.rate("jobs of "+queue, jobs[queue], seconds)
			if worked >= 0 && busy >= 0 && done >= 0 && len(out) < maxUsages {
				out[queue] = queueLoad{Busy: min(busy, slots), Room: max(0, slots-max(0, worked-busy)), Done: done, Rate: unknown}
			}
		}
	}
	for queue, rate := range gauges(by, QueueRateLimit, "queue") {
		load, ok := out[queue]
		if !ok {
			load = queueLoad{Busy: unknown, Room: unknown, Done: unknown}
		}
		if load.Rate = rate; ok || len(out) < maxUsages {
			out[queue] = load
		}
	}
	return out
}

func checkQueueLoads(all map[string]queueLoad) error {
	if len(all) > maxUsages {
		return fmt.Errorf("metrics: a snapshot has loads of %d queues, at most %d are read", len(all), maxUsages)
	}
	for _, q := range all {
		if !plausible([]float64{q.Busy, q.Room, q.Done, q.Rate}) {
			return errors.New("metrics: a snapshot has an impossible load of a queue")
		}
	}
	return nil
}

// queueStep is the mean of a step, of all instances together.
type queueStep struct{ busy, room, done, rate mean }

// addQueues takes what instances tell of their queues. Work adds up, a limit is the fleet's.
func (l *ledger) addQueues(all map[string]*vitals) {
	totals := map[string]queueLoad{}
	for _, v := range all {
		if v.Rates[requestRate] < 0 || v.Rates[jobRate] < 0 {
			continue
		}
		for queue, q := range v.Queues {
			t, seen := totals[queue]
			if !seen {
				t = queueLoad{unknown, unknown, unknown, unknown}
			}
			if q.Busy >= 0 {
				t.Busy, t.Room, t.Done = max(0, t.Busy)+q.Busy, max(0, t.Room)+max(0, q.Room), max(0, t.Done)+max(0, q.Done)
			}
			t.Rate = max(t.Rate, q.Rate)
			totals[queue] = t
		}
	}
	for queue, t := range totals {
		ring := l.queues[queue]
		if ring == nil {
			if l.uses[resourceKey(resourceQueue, queue)] == nil {
				continue // it is not among the resources that are kept
			}
			ring = new([keptSteps]queueStep)
			l.queues[queue] = ring
		}
		step := &ring[l.head]
		step.busy.add(t.Busy)
		step.room.add(t.Room)
		step.done.add(t.Done)
		step.rate.add(t.Rate)
	}
}

// queueLaw adds a queue's ceiling: where its workers are all at work on it, or where its rate limit is reached, whichever
// comes first; or why there is none.
func (l *ledger) queueLaw(r *Resource, queue string, driver, recent int, per string) {
	ring := l.queues[queue]
	if ring == nil {
		r.Status = notEnough + ": nothing tells of its workers or its limit"
		return
	}
	var best Resource
	status := notEnough + ": nobody works on it"
	for _, bound := range []struct {
		capacity float64 // NaN where it is not known
		of       func(*queueStep) mean
		evidence string
	}{
		{l.lately(recent, func(i int) mean { return ring[i].room }), func(s *queueStep) mean { return s.busy }, "each of the %s keeps %s of the slots at work for a second, of %s that other queues leave"},
		{l.lately(recent, func(i int) mean { return ring[i].rate }), func(s *queueStep) mean { return s.done }, "each of the %s brings %s jobs, and its limit starts %s a second"},
	} {
		if !(bound.capacity > 0) {
			continue
		}
		d, why := fitDemand(l.pairs(driver, func(i int) (float64, bool) { m := bound.of(&ring[i]); return float64(m.v), m.n > 0 }), l.step.Seconds())
		var found Resource
		if why == "" {
			why = found.bounded(d, bound.capacity, per)
		}
		if why != "" {
			status = why
			continue
		}
		if best.Ceiling == nil || *found.Ceiling < *best.Ceiling {
			found.say(bound.evidence, per, figures(d.perEvent), figures(bound.capacity))
			best = found
		}
	}
	if best.Ceiling == nil {
		r.Status = forDriver(status, per)
		return
	}
	r.Demand, r.Ceiling, r.CeilingLow, r.CeilingHigh = best.Demand, best.Ceiling, best.CeilingLow, best.CeilingHigh
	r.Evidence = append(r.Evidence, best.Evidence...)
}
