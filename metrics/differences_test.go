package metrics

import (
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What follows are the differences from Prometheus that doc.go lists.

func TestEvaluationOutlastsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		a := run(t, &CapacityOptions{Instance: "a", Store: store})
		b := run(t, &CapacityOptions{Instance: "b", Store: store})
		defer a.stop()
		defer b.stop()
		b.tasks.WithLabelValues("normal", "pending").Set(6000) // only b sees it
		fires := func() bool { return slices.Contains(a.Dashboard().states(), "queue_depth critical firing") }
		pass(140, nil)
		if !fires() {
			t.Fatalf("alerts: %v", a.Dashboard().states())
		}
		store.fail(errors.New("redis is away"))
		pass(270, nil)
		if !fires() {
			t.Error("the alert ended with the store")
		}
		pass(180, nil) // and is kept firing for two
		if fires() {
			t.Error("the alert goes on after what is known is more than five minutes old")
		}
	})
}

func TestEvaluationCountsFromZero(t *testing.T) {
	evictions, errorRate := metric(t, "cache_evictions"), metric(t, "api_error_rate")
	w := newWindow([]KeyMetric{evictions, errorRate}, 5*time.Minute, false)
	for i := range 61 {
		p := points{}
		if i == 60 { // both appear at once: errors of ours, and a server's counter
			copy(p.at(errorRate.ID, "", 2), []float64{3, 97})
			p.at(evictions.ID, "r1", 1)[0] = 1e6
		}
		now := epoch.Add(time.Duration(i) * 5 * time.Second)
		w.add(frame{at: now, readings: map[string]*reading{"a": {At: now.UnixMilli(), Points: p}}})
	}
	if got := w.values(errorRate, "")[""]; got != .03 {
		t.Errorf("error rate %v, want 0.03 of the first requests at once", got)
	}
	if got := w.values(evictions, ""); len(got) != 0 {
		t.Errorf("evictions %v from one sample", got)
	}
}

// Two series of an instance, one of them young: Prometheus extrapolates each, we their sum.
func TestEvaluationAddsAnInstancesSeries(t *testing.T) {
	throughput := metric(t, "api_throughput")
	rate := func(of func(second float64) float64) float64 {
		w := newWindow([]KeyMetric{throughput}, 5*time.Minute, true) // the window begins between two samples
		for i := range 61 {
			now := epoch.Add(time.Duration(i) * 5 * time.Second)
			p := points{}
			p.at(throughput.ID, "", 1)[0] = of(float64(5 * i))
			w.add(frame{at: now, readings: map[string]*reading{"a": {Started: -1e12, At: now.UnixMilli(), Points: p}}})
		}
		return w.values(throughput, "")[""]
	}
	old := func(second float64) float64 { return 1e6 + 10*second }
	young := func(second float64) float64 { return 10 * max(0, second-100) }
	apart, together := rate(old)+rate(young), rate(func(second float64) float64 { return old(second) + young(second) })
	if apart == together || math.Abs(together-apart) > 5*10/300.+1e-9 {
		t.Errorf("%v together, %v apart: want a difference of at most 5 s of the young one's rate", together, apart)
	}
}

func TestEvaluationBeginsAnewAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &CapacityOptions{Instance: "a"})
		r.tasks.WithLabelValues("normal", "pending").Set(6000)
		pass(140, nil)
		r.stop()
		again := run(t, &CapacityOptions{Instance: "a"})
		defer again.stop()
		again.tasks.WithLabelValues("normal", "pending").Set(6000)
		pass(60, nil)
		if d := again.Dashboard(); !d.Warming || slices.Contains(d.states(), "queue_depth critical firing") {
			t.Errorf("warming %v, alerts %v", d.Warming, d.states())
		}
	})
}

func TestAlertsAreRememberedFor15Minutes(t *testing.T) {
	m := metric(t, "queue_depth") // critical after 2 min, kept firing for 2 more
	a, v := alerts{}, results{m.ID: {"normal": 6000}}
	now := epoch
	tick := func(minutes float64) {
		for range int(2 * minutes) {
			a.tick(now, []KeyMetric{m}, v)
			now = now.Add(30 * time.Second)
		}
	}
	tick(6)
	if list := a.list(""); len(list) != 2 || list[0].State != "firing" || list[0].Inhibited || !list[1].Inhibited {
		t.Errorf("%+v", list)
	}
	if list := a.ended(""); len(list) != 0 {
		t.Errorf("ended: %+v", list)
	}
	v[m.ID]["normal"] = 3
	tick(1)
	if list := a.list(""); len(list) != 2 || list[0].KeepFiringSince == nil || !list[0].KeepFiringSince.Equal(epoch.Add(6*time.Minute)) {
		t.Errorf("while it is kept firing: %+v", list)
	}
	tick(2)
	if list := a.ended(""); len(a.list("")) != 0 || len(list) != 2 || !list[0].ResolvedAt.Equal(epoch.Add(8*time.Minute)) || list[0].State != "inactive" {
		t.Errorf("ended: %+v", list)
	}
	tick(14.5)
	if len(a.ended("")) != 2 {
		t.Error("forgotten when 15 minutes have passed: Prometheus knows it for one tick more")
	}
	tick(.5)
	if len(a.ended("")) != 0 {
		t.Error("still known after 15 minutes")
	}
}
