package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// shelf is a SnapshotStore in this process's memory, with a switch to break it.
type shelf struct {
	mu     sync.Mutex
	blobs  map[string][]byte
	until  map[string]time.Time
	broken error
}

func newShelf() *shelf { return &shelf{blobs: map[string][]byte{}, until: map[string]time.Time{}} }

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

func (s *shelf) Put(_ context.Context, instance string, blob []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[instance], s.until[instance] = blob, time.Now().Add(ttl)
	return s.broken
}

func (s *shelf) All(context.Context) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.blobs, func(k string, _ []byte) bool { return !time.Now().Before(s.until[k]) })
	return maps.Clone(s.blobs), s.broken
}

// running is a Capacity at work inside a synctest bubble.
type running struct {
	*fixture
	*Capacity
	stop context.CancelFunc
}

func run(t *testing.T, opts *CapacityOptions) *running {
	t.Helper()
	f := newFixture(t)
	c, err := NewCapacity(f.reg, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	synctest.Wait()
	return &running{f, c, stop}
}

// pass lets time pass, each second after work.
func pass(seconds int, work func()) {
	for range seconds {
		if work != nil {
			work()
		}
		time.Sleep(time.Second)
	}
	synctest.Wait()
}

func (d *Report) measurement(id string, label string) *Measurement {
	for i, m := range d.Metrics {
		if m.ID == id && (label == "" || slices.Contains(slices.Collect(maps.Values(m.Labels)), label)) {
			return &d.Metrics[i]
		}
	}
	return &Measurement{}
}

func (d *Report) states() (out []string) {
	for _, a := range d.Alerts {
		out = append(out, a.Labels["metric"]+" "+a.Labels["severity"]+" "+a.State)
	}
	return out
}

func TestCapacityAlertsOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &CapacityOptions{Instance: "a"})
		defer r.stop()
		slow := func() { r.requests(94, .01, "2xx"); r.requests(6, .25, "2xx") }
		pass(60, slow)
		d := r.Dashboard()
		if diff := cmp.Diff([]string{"api_latency_p95 warning pending"}, d.states()); diff != "" {
			t.Errorf("after a minute: %s", diff)
		}
		if m := d.measurement("api_latency_p95", ""); m.Value == nil || *m.Value <= .2 || *m.Value >= .3 || m.State != Warning {
			t.Errorf("p95 is %+v", m)
		}
		if v := *d.measurement("api_throughput", "").Value; v != 20 {
			t.Errorf("throughput %v, want 6000 requests in the five minutes that Prometheus divides by", v)
		}
		if m := d.measurement("db_query_time", ""); m.Value != nil || m.State != Unknown {
			t.Errorf("a metric that nothing measures is %+v, want unknown", m)
		}
		if !d.Warming || d.Scope != "instance" || d.Degraded != "" {
			t.Errorf("about: %+v", d.About)
		}
		pass(250, slow)
		d = r.Dashboard()
		if diff := cmp.Diff([]string{"api_latency_p95 warning firing"}, d.states()); diff != "" {
			t.Errorf("after five minutes: %s", diff)
		}
		if d.Warming || d.WindowSeconds != 300 {
			t.Errorf("about: %+v", d.About)
		}
		pass(310, func() { r.requests(100, .01, "2xx") })
		if d = r.Dashboard(); len(d.Alerts) != 0 {
			t.Errorf("when all is well again: %v", d.states())
		}
		pass(310, nil)
		if d = r.Dashboard(); d.measurement("api_latency_p95", "").Value != nil || *d.measurement("api_throughput", "").Value != 0 {
			t.Error("without traffic the latency must be unknown and the throughput 0")
		}
		r.stop()
		pass(16, nil)
		if d = r.Dashboard(); d.measurement("api_throughput", "").Value != nil || d.Degraded == "" {
			t.Error("an evaluation that no longer runs must not go on being reported")
		}
	})
}

func TestCapacityMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &CapacityOptions{Instance: "a"})
		defer r.stop()
		r.evicted.WithLabelValues("r1").Add(1e6)
		pass(330, func() {
			r.queries.WithLabelValues("app", "get").Observe(.1) // not over 100 ms
			r.queries.WithLabelValues("app", "list").Observe(.2)
			r.lookups.WithLabelValues("lead", "negative").Add(2)
			r.lookups.WithLabelValues("lead", "l2").Add(5)
			r.lookups.WithLabelValues("lead", "miss").Add(3)
			r.verified.WithLabelValues("lead", "same").Add(3)
			r.verified.WithLabelValues("lead", "stale").Add(1)
			r.verified.WithLabelValues("lead", "skipped").Add(90)
			r.evicted.WithLabelValues("r1").Add(20)
			r.jobs.WithLabelValues("normal", "score", "failed").Observe(45)
			r.jobs.WithLabelValues("normal", "score", "done").Observe(45)
			r.size.WithLabelValues("leads").Set(5e9)
		})
		d := r.Dashboard()
		for id, want := range map[string]float64{
			"db_slow_queries": 60, "cache_hit_rate": .7, "cache_stale_ratio": .25, "cache_evictions": 20, "job_failed_rate": .5, "job_time": 58.5, "db_size": 5e9,
		} {
			if m := d.measurement(id, ""); *m.Value < want*.99 || *m.Value > want*1.01 {
				t.Errorf("%s is %v, want %v", id, *m.Value, want)
			}
		}
	})
}

// A few stale hits of a few are no ratio, however many could not be compared; each cache is judged by itself.
func TestCapacityIsSilentAboutFewComparisons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &CapacityOptions{Instance: "a"})
		defer r.stop()
		if d := r.Dashboard(); slices.Contains(d.Unmeasured, "cache_stale_ratio") {
			t.Errorf("unmeasured: %v", d.Unmeasured)
		} else if m := d.measurement("cache_stale_ratio", ""); m.Value != nil || m.State != Unknown {
			t.Errorf("without comparisons the ratio is %+v, want none", m)
		}
		second := 0
		pass(1000, func() {
			r.verified.WithLabelValues("busy", "same").Add(90)
			r.verified.WithLabelValues("busy", "stale").Add(10)
			r.verified.WithLabelValues("seldom", "skipped").Add(100)
			r.verified.WithLabelValues("never", "skipped").Inc()
			if second++; second%4 == 0 {
				r.verified.WithLabelValues("seldom", "stale").Inc()
			}
		})
		d := r.Dashboard()
		if diff := cmp.Diff([]string{"cache_stale_ratio critical firing", "cache_stale_ratio warning firing"}, d.states()); diff != "" {
			t.Errorf("alerts: %s", diff)
		}
		for _, a := range d.Alerts {
			if a.Labels["cache"] != "busy" {
				t.Errorf("it fires for %v", a.Labels)
			}
		}
		if m := d.measurement("cache_stale_ratio", "busy"); m.State != Critical {
			t.Errorf("the ratio of many comparisons is %+v, want it critical", m)
		}
		if m := d.measurement("cache_stale_ratio", "seldom"); m.Value == nil || *m.Value != 1 || m.State != Unknown {
			t.Errorf("the ratio of few comparisons is %+v, want 1, which says nothing", m)
		}
		if m := d.measurement("cache_stale_ratio", "never"); m.ID != "" {
			t.Errorf("the ratio of none is %+v", m)
		}
	})
}

func TestCapacityBeforeRun(t *testing.T) {
	c := must(NewCapacity(prometheus.NewRegistry(), nil))
	text, err := json.Marshal(c.Dashboard())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if alerts, ok := got["alerts"].([]any); !ok || len(alerts) != 0 {
		t.Errorf("alerts: %v, want an empty array", got["alerts"])
	}
	if list := got["metrics"].([]any); len(list) != len(KeyMetrics().Rows) {
		t.Errorf("%d metrics, want every one of %d", len(list), len(KeyMetrics().Rows))
	}
	if got["warming"] != true || c.Bottlenecks().Verdict != "not enough data" {
		t.Errorf("%s", text)
	}
}

func TestCapacityOfAFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		var log bytes.Buffer
		errorsReg := prometheus.NewRegistry()
		a := run(t, &CapacityOptions{Instance: "a", Store: store, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: errorsReg})
		b := run(t, &CapacityOptions{Instance: "b", Store: store})
		ops := run(t, &CapacityOptions{Instance: "ops", Store: store}) // serves the report, and nothing else
		defer a.stop()
		defer b.stop()
		defer ops.stop()
		busy := func() {
			a.requests(60, .01, "2xx")
			b.requests(49, .01, "2xx")
			b.requests(1, .01, "5xx") // 0.9 % of all, 2 % of b's
			a.acquired.WithLabelValues("app", "primary").Set(95)
			a.limit.WithLabelValues("app", "primary").Set(100)
			b.acquired.WithLabelValues("app", "primary").Set(10)
			b.limit.WithLabelValues("app", "primary").Set(100)
			for _, r := range []*running{a, b, ops} {
				r.tasks.WithLabelValues("normal", "pending").Set(700)
			}
		}
		pass(330, busy)
		d := ops.Dashboard()
		if d.Scope != "fleet" || !slices.Equal(d.Instances, []string{"a", "b", "ops"}) {
			t.Errorf("about: %+v", d.About)
		}
		for id, want := range map[string]float64{"api_throughput": 110, "api_error_rate": 1. / 110, "db_pool_utilization": .95, "queue_depth": 700} {
			if v := *d.measurement(id, "").Value; v < want*.99 || v > want*1.01 {
				t.Errorf("%s is %v, want %v", id, v, want)
			}
		}
		want := []string{"db_pool_utilization critical firing", "api_error_rate warning firing", "db_pool_utilization warning firing"}
		if diff := cmp.Diff(want, d.states()); diff != "" {
			t.Error(diff)
		}

		store.fail(errors.New("redis is away"))
		pass(20, busy)
		d = a.Dashboard()
		if d.Scope != "instance" || d.Degraded == "" || !slices.Equal(d.Instances, []string{"a"}) {
			t.Errorf("about, without the store: %+v", d.About)
		}
		if v := *d.measurement("api_throughput", "").Value; v < 59 || v > 61 {
			t.Errorf("throughput of a alone is %v, want 60", v)
		}
		if n := strings.Count(log.String(), "redis is away"); n != 1 {
			t.Errorf("the failure was logged %d times, want once\n%s", n, log.String())
		}
		if n := counted(t, errorsReg, BackgroundErrors.Name); n != 4 {
			t.Errorf("%v failures were counted in 20 s, want 4", n)
		}

		store.fail(nil)
		b.stop() // dies
		pass(30, busy)
		d = ops.Dashboard()
		if d.Scope != "fleet" || d.Degraded != "" || !slices.Equal(d.Instances, []string{"a", "ops"}) {
			t.Errorf("about, after b has died: %+v", d.About)
		}
		if v := *d.measurement("api_throughput", "").Value; v < 95 || v > 109 {
			t.Errorf("throughput is %v: b's requests belong to the window still", v)
		}
		pass(300, busy)
		if v := *ops.Dashboard().measurement("api_throughput", "").Value; v < 59 || v > 61 {
			t.Errorf("throughput is %v a window after b has died, want 60", v)
		}
	})
}

func counted(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	for _, f := range must(reg.Gather()) {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestCapacityDistrustsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		reg := prometheus.NewRegistry()
		for name, blob := range map[string]string{
			"junk":     "junk",
			"version":  `{"v":99}`,
			"negative": `{"v":2,"points":{"api_throughput":{"":[-1]}}}`,
			"time":     `{"v":2,"started":5,"at":1}`,
			"large":    strings.Repeat("x", maxSnapshot+1),
			"shape":    `{"v":2,"points":{"api_throughput":{"":[1,2,3]},"api_latency_p95":{"":[]},"unheard_of":{"":[1]},"unknown":{"":[]},"db_pool_utilization":{"p":null}}}`,
		} {
			store.blobs[name], store.until[name] = []byte(blob), time.Now().Add(time.Hour)
		}
		r := run(t, &CapacityOptions{Instance: "a", Store: store, Registerer: reg})
		defer r.stop()
		busy := func() { r.requests(10, .01, "2xx") }
		pass(12, busy)
		if d := r.Dashboard(); !slices.Equal(d.Instances, []string{"a", "shape"}) {
			t.Errorf("instances: %v", d.Instances)
		}
		pass(18, busy) // "shape" is never renewed
		d := r.Dashboard()
		if v := *d.measurement("api_throughput", "").Value; v != 1 {
			t.Errorf("throughput %v, want 300 requests in five minutes", v)
		}
		if !slices.Equal(d.Instances, []string{"a"}) {
			t.Errorf("instances: %v", d.Instances)
		}
		for _, want := range []string{`left out: the snapshot of "junk", "large", "negative", "time", "version"`, `no longer renewed, and left out: the snapshot of "shape"`} {
			if !strings.Contains(d.Degraded, want) {
				t.Errorf("degraded is %q, want %s", d.Degraded, want)
			}
		}
		if counted(t, reg, BackgroundErrors.Name) == 0 {
			t.Error("the bad snapshots were not counted")
		}
	})
}

func TestNewCapacityReportsAllMistakes(t *testing.T) {
	_, err := NewCapacity(nil, &CapacityOptions{Interval: time.Second, Window: time.Second})
	for _, want := range []string{"needs a gatherer", "Window"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewCapacity: %v, want %q", err, want)
		}
	}
}

func TestTicksAreOnTime(t *testing.T) {
	const every = 5 * time.Second
	for late, want := range map[time.Duration]time.Duration{
		0: every, time.Millisecond: every, -time.Millisecond: every, every / 2: every,
		every/2 + 1: every + every/2 + 1, 3 * every: 4 * every, -every/2 - 1: every - every/2 - 1,
	} {
		if got := due(epoch, epoch.Add(every+late), every).Sub(epoch); got != want {
			t.Errorf("%v late: %v, want %v", late, got, want)
		}
	}
}
