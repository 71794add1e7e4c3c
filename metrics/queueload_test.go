package metrics

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// An API instance that serves x requests and a worker of 10 slots: each request makes half a job of 0.2 s for the queue, and
// other queues keep 4 slots busy.
func queued(steps int, rate float64) *ledger {
	l := newLedger(5*time.Second, 5*time.Minute)
	for i := range steps {
		x := float64(20 + 20*(i/13%3))
		l.add(epoch.Add(time.Duration(i)*5*time.Second), map[string]*vitals{
			"api": {
				Rates: [2]float64{x, 0}, Usage: map[string]usage{resourceKey(resourceQueue, "mail"): {3, 5000, unknown, unknown}},
				Queues: map[string]queueLoad{"mail": {unknown, unknown, unknown, rate}},
			},
			"worker": {Queues: map[string]queueLoad{"mail": {.1 * x, 6, .5 * x, unknown}, "another": {4, 10 - .1*x, 1, unknown}}},
		})
	}
	return l
}

func TestQueueHasACeiling(t *testing.T) {
	for name, test := range map[string]struct {
		rate, want float64
		evidence   string
	}{
		"of its workers":  {unknown, 60, "each of the requests keeps 0.1 of the slots at work for a second, of 6 that other queues leave"},
		"of a wide limit": {1000, 60, "keeps 0.1 of the slots"},
		"of its limit":    {25, 50, "each of the requests brings 0.5 jobs, and its limit starts 25 a second"},
	} {
		b := queued(400, test.rate).bottlenecks(5*time.Minute, About{})
		r := b.resource("queue")
		if r.Ceiling == nil || math.Abs(*r.Ceiling-test.want) > .02*test.want || *r.CeilingLow > *r.Ceiling || *r.CeilingHigh < *r.Ceiling {
			t.Errorf("%s: ceiling %v, %q, want %v", name, orZero(r.Ceiling), r.Status, test.want)
		}
		if got := strings.Join(r.Evidence, "; "); !strings.Contains(got, test.evidence) {
			t.Errorf("%s: evidence %q", name, got)
		}
		if b.Resources[0].ID != "queue" || !strings.HasPrefix(b.Verdict, "Queue mail limits first, at about ") {
			t.Errorf("%s: %s", name, b.Verdict)
		}
		if len(b.Resources) != 1 {
			t.Errorf("%s: a queue whose depth nobody tells is a resource: %+v", name, b.Resources)
		}
	}
}

func TestQueueWithoutEnoughData(t *testing.T) {
	if r := queued(60, 25).bottlenecks(5*time.Minute, About{}).resource("queue"); r.Ceiling != nil || !strings.HasPrefix(r.Status, "not enough data: ") {
		t.Errorf("after five minutes: %v %q", orZero(r.Ceiling), r.Status)
	}
	l := newLedger(5*time.Second, 5*time.Minute)
	for i := range 400 {
		l.add(epoch.Add(time.Duration(i)*5*time.Second), map[string]*vitals{"api": {
			Rates: [2]float64{float64(20 + i%40), 0}, Usage: map[string]usage{resourceKey(resourceQueue, "mail"): {3, 5000, unknown, unknown}},
		}})
	}
	if r := l.bottlenecks(5*time.Minute, About{}).resource("queue"); r.Ceiling != nil || r.Status != "not enough data: nothing tells of its workers or its limit" {
		t.Errorf("nobody works: %v %q", orZero(r.Ceiling), r.Status)
	}
}

// What an instance tells of its queues: a worker its slots and jobs, who samples the limit.
func TestQueueLoads(t *testing.T) {
	reg := prometheus.NewRegistry()
	slots := must(NewGauge(reg, QueueWorkerSlots))
	rate := must(NewGauge(reg, QueueRateLimit))
	jobs := must(NewHistogram(reg, JobDuration))
	for _, queue := range []string{"mail", "slow"} {
		jobs.WithLabelValues(queue, "t", "done")
	}
	rate.WithLabelValues("mail").Set(50)
	slots.WithLabelValues().Set(10)
	e := &examiner{probe: newProbe(), counts: map[string]float64{}, blamed: newBlamer(KeyMetrics().Rows, 5*time.Minute)}
	v := e.examine(epoch, must(reg.Gather()), nil)
	if got := v.Queues["mail"]; got != (queueLoad{unknown, unknown, unknown, 50}) {
		t.Errorf("at first %v", got)
	}
	for range 20 {
		jobs.WithLabelValues("mail", "t", "done").Observe(.5)   // 10 s in 5: 2 slots
		jobs.WithLabelValues("mail", "t", "failed").Observe(.5) // and 2 more
		jobs.WithLabelValues("slow", "t", "done").Observe(.75)  // 3
	}
	v = e.examine(epoch.Add(5*time.Second), must(reg.Gather()), nil)
	if got := v.Queues["mail"]; got != (queueLoad{4, 7, 8, 50}) {
		t.Errorf("mail: %v", got)
	}
	if got := v.Queues["slow"]; got != (queueLoad{3, 6, 4, unknown}) {
		t.Errorf("slow: %v", got)
	}
	if err := v.check(); err != nil {
		t.Error(err)
	}
	v.Queues["mail"] = queueLoad{math.Inf(1), 1, 1, 1}
	if v.check() == nil {
		t.Error("an impossible load was taken")
	}
}

// Callers that got no connection are its errors.
func TestDBPoolFailuresAreItsErrors(t *testing.T) {
	reg := prometheus.NewRegistry()
	for s, value := range map[string]float64{DBPoolAcquired.Name: 3, DBPoolMax.Name: 10} {
		must(NewGauge(reg, map[string]Series{DBPoolAcquired.Name: DBPoolAcquired, DBPoolMax.Name: DBPoolMax}[s])).WithLabelValues("app", "primary").Set(value)
	}
	failures := must(NewCounter(reg, DBPoolFailures))
	failures.WithLabelValues("app", "primary", "timeout")
	e := &examiner{probe: newProbe(), counts: map[string]float64{}, blamed: newBlamer(KeyMetrics().Rows, 5*time.Minute)}
	l := newLedger(5*time.Second, 5*time.Minute)
	for i := range 4 {
		now := epoch.Add(time.Duration(i) * 5 * time.Second)
		v := e.examine(now, must(reg.Gather()), nil)
		failures.WithLabelValues("app", "primary", "timeout").Add(4)
		failures.WithLabelValues("app", "primary", "cancelled").Add(1)
		l.add(now, map[string]*vitals{"a": v})
	}
	b := l.bottlenecks(5*time.Minute, About{})
	if first := b.Resources[0]; first.ID != "db_pool" || first.Errors == nil || math.Abs(*first.Errors-1) > .01 || first.Evidence[0] != "1 failures/s for want of it" {
		t.Errorf("%+v", first)
	}
	if b.Verdict != "Connection pool app primary fails now: 1 failures/s for want of it" {
		t.Errorf("verdict %q", b.Verdict)
	}
}
