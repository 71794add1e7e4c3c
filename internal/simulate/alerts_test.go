package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/scaleaware/scaleaware/metrics"
)

// alerts lets two pools' use rise and fall, vanish, and be gathered late. At each tick the state of each alert is what
// Prometheus's rules make of the values up to then, which a model of a few lines says; and what the webhook is told is true when
// it is told: firing before resolved, and each that was told firing is told resolved in the end.
func alerts(w *world) {
	const lasts = 8 * time.Minute
	a := &alarms{world: w, registry: prometheus.NewRegistry(), pools: []string{"a", "b"}, values: map[string]float64{}, model: map[string]*modelAlert{}, told: map[string]bool{}}
	pick := func(least, most int) *time.Duration {
		d := time.Duration(least+w.IntN(most-least)) * time.Second
		return &d
	}
	a.warningFor, a.criticalFor, a.keep = *pick(1, 60), *pick(1, 40), *pick(0, 40)
	table, err := metrics.KeyMetrics().Override(map[string]metrics.Override{"db_pool_utilization": {WarningFor: &a.warningFor, CriticalFor: &a.criticalFor, KeepFiringFor: &a.keep}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.note("planned: warning after %v, critical after %v, kept for %v", a.warningFor, a.criticalFor, a.keep)
	acquired, err1 := metrics.NewGauge(a.registry, metrics.DBPoolAcquired)
	limit, err2 := metrics.NewGauge(a.registry, metrics.DBPoolMax)
	hook, err3 := metrics.NewWebhook("http://hook.example.com", &metrics.WebhookOptions{
		GroupWait: time.Second, GroupInterval: *pick(1, 30), Client: &http.Client{Transport: a},
	})
	if err1 != nil || err2 != nil || err3 != nil {
		w.t.Fatal(err1, err2, err3)
	}
	a.capacity, err = metrics.NewCapacity(a, &metrics.CapacityOptions{Table: table, Window: time.Minute, Webhook: hook, Instance: "process"})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	set := func(pool string, used int) {
		a.lock.Lock()
		defer a.lock.Unlock()
		w.note("pool %s uses %d%%", pool, used)
		if used < 0 {
			acquired.DeleteLabelValues(pool, "primary")
			limit.DeleteLabelValues(pool, "primary")
			delete(a.values, pool)
			return
		}
		acquired.WithLabelValues(pool, "primary").Set(float64(used))
		limit.WithLabelValues(pool, "primary").Set(100)
		a.values[pool] = float64(used) / 100
	}
	running.Go(func() { _ = a.capacity.Run(ctx) })
	for w.now() < lasts {
		time.Sleep(w.between(time.Second, 40*time.Second))
		set(a.pools[w.IntN(2)], []int{50, 80, 81, 85, 90, 91, 95, -1}[w.IntN(8)])
	}
	for _, pool := range a.pools {
		set(pool, 10)
	}
	time.Sleep(4 * time.Minute)
	a.lock.Lock()
	for name, firing := range a.told {
		if firing {
			w.violated("the end of %s was never told", name)
		}
	}
	a.lock.Unlock()
	w.end()
}

// alarms is the registry that is gathered from, the receiver of the webhook, and the model.
type alarms struct {
	*world
	registry                      *prometheus.Registry
	capacity                      *metrics.Capacity
	pools                         []string
	warningFor, criticalFor, keep time.Duration

	lock   sync.Mutex
	values map[string]float64 // now, by pool
	seen   map[string]float64 // at the last tick
	model  map[string]*modelAlert
	told   map[string]bool // whether an alert was last told to fire
}

// modelAlert is Prometheus's alert: pending since the first tick past its bound, firing when it was past at every tick for so
// long, and kept for a time after it.
type modelAlert struct {
	since, kept time.Time
	firing      bool
}

// Gather judges the last tick, and gives the next one its values, late at times.
func (a *alarms) Gather() ([]*dto.MetricFamily, error) {
	time.Sleep(time.Millisecond) // after a late tick the next one comes at once, and what the last one told would race with it
	if a.seen != nil {
		a.judge(a.capacity.Dashboard())
	}
	// With the half interval that a tick's own time may be before it, less than the three after which a report counts no more.
	if n := a.draw("late", a.now()); n%12 == 0 {
		time.Sleep(time.Duration(n % uint64(12*time.Second)))
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	a.seen = map[string]float64{}
	for pool, value := range a.values {
		a.seen[pool] = value
	}
	return a.registry.Gather()
}

// judge moves the model on by a tick, and compares.
func (a *alarms) judge(d *metrics.Report) {
	reported := map[string]string{}
	for _, alert := range d.Alerts {
		if alert.Labels["metric"] == "db_pool_utilization" {
			reported[name(alert.Labels)] = alert.State
		}
	}
	for _, pool := range a.pools {
		for severity, bound := range map[string]struct {
			value float64
			lasts time.Duration
		}{"warning": {.8, a.warningFor}, "critical": {.9, a.criticalFor}} {
			key := pool + " " + severity
			value, known := a.seen[pool]
			want := a.step(key, d.Time, known && value > bound.value, bound.lasts)
			if reported[key] != want {
				a.violated("%s is %q at %v, want %q", key, reported[key], d.Time.Sub(a.began), want)
			}
			if want != "" {
				a.note("%s is %s", key, want)
			}
		}
	}
}

func (a *alarms) step(key string, now time.Time, past bool, lasts time.Duration) string {
	m := a.model[key]
	switch {
	case m == nil && past:
		m = &modelAlert{since: now}
		a.model[key] = m
	case m == nil:
		return ""
	case past:
		m.kept = time.Time{}
	case !m.firing:
		delete(a.model, key)
		return ""
	default:
		if m.kept.IsZero() {
			m.kept = now
		}
		if now.Sub(m.kept) >= a.keep {
			delete(a.model, key)
			return ""
		}
	}
	if m.firing = m.firing || now.Sub(m.since) >= lasts; m.firing {
		return "firing"
	}
	return "pending"
}

func name(labels map[string]string) string { return labels["pool"] + " " + labels["severity"] }

// RoundTrip receives a message, slowly at times, and refuses some. It answers 404 and not 500, after which the pause
// would be drawn at random.
func (a *alarms) RoundTrip(req *http.Request) (*http.Response, error) {
	var message struct {
		Alerts []struct {
			Status string
			Labels map[string]string
		}
	}
	if err := json.NewDecoder(req.Body).Decode(&message); err != nil {
		a.violated("a message that is none: %v", err)
	}
	state := map[string]string{}
	for _, alert := range a.capacity.Dashboard().Alerts {
		state[fmt.Sprint(alert.Labels)] = alert.State
	}
	n := a.draw("hook", a.now())
	refused := n%4 == 0 && a.now() < 8*time.Minute
	a.lock.Lock()
	for _, alert := range message.Alerts {
		key, firing := name(alert.Labels), alert.Status == "firing"
		a.note("told that %s is %s, refused: %v", key, alert.Status, refused)
		if firing != (state[fmt.Sprint(alert.Labels)] == "firing") {
			a.violated("told that %s is %s, when it is %q", key, alert.Status, state[fmt.Sprint(alert.Labels)])
		}
		if !refused {
			a.told[key] = firing
		}
	}
	a.lock.Unlock()
	time.Sleep(time.Duration(n % uint64(2*time.Second)))
	code := http.StatusOK
	if refused {
		code = http.StatusNotFound
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}
