package metrics

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func (b *Bottlenecks) resource(id string) *Resource {
	for i, r := range b.Resources {
		if r.ID == id {
			return &b.Resources[i]
		}
	}
	return &Resource{}
}

// The whole way from instruments to the report: two instances with unlike loads, one of them asked.
func TestBottlenecksOfAFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		a := run(t, &CapacityOptions{Instance: "a", Store: store, Limits: Limits{HTTPRequests: 100}})
		// Nothing comes in the same moment: whether a sample has what is done then, and whether one instance has the other's sample, would
		// be a matter of luck, which is worth a tenth when the load jumps as here.
		time.Sleep(time.Second / 4)
		b := run(t, &CapacityOptions{Instance: "b", Store: store, Limits: Limits{HTTPRequests: 100}})
		time.Sleep(time.Second / 4)
		defer a.stop()
		defer b.stop()
		second := 0
		work := func() {
			second++
			n := 20 + 40*(second/37%3) // 20, 60 and 100 a second
			for _, r := range []*running{a, b} {
				r.requests(n, .01, "2xx")
				r.limit.WithLabelValues("app", "primary").Set(10)
			}
			a.acquired.WithLabelValues("app", "primary").Set(1 + .04*float64(n)) // 1 of 10 by others, .04 s a request
			b.acquired.WithLabelValues("app", "primary").Set(1 + .02*float64(n))
		}
		pass(100, work)
		if pool := a.Bottlenecks().resource("db_pool"); pool.Ceiling != nil || !strings.HasPrefix(pool.Status, "not enough data") {
			t.Errorf("after 100 s: %v, %q", pool.Ceiling, pool.Status)
		}
		pass(700, work)
		r := b.Bottlenecks() // of both, whoever is asked
		pool := r.resource("db_pool")
		if r.Scope != "fleet" || r.ThroughputOf != "requests" || pool.Ceiling == nil {
			t.Fatalf("%s %s: %q", r.Scope, r.ThroughputOf, pool.Status)
		}
		// a is full at 225 requests of its own, which are half of all.
		if math.Abs(*pool.Ceiling-450) > 45 || *pool.CeilingLow > *pool.Ceiling || *pool.CeilingHigh < *pool.Ceiling {
			t.Errorf("the pool's ceiling is %v (%v to %v), want 450", *pool.Ceiling, *pool.CeilingLow, *pool.CeilingHigh)
		}
		if pool.Labels["pool"] != "app" || pool.Labels["role"] != "primary" || *pool.Limit != 20 || pool.Step == "" || !strings.Contains(strings.Join(pool.Evidence, "; "), "used by a") {
			t.Errorf("the pool: %+v", pool)
		}
		if r.Resources[0].ID != "db_pool" || !strings.HasPrefix(r.Verdict, "Connection pool app primary limits first, at about 4") {
			t.Errorf("first is %s: %s", r.Resources[0].ID, r.Verdict)
		}
		if own := a.bottlenecks(instanceReach).resource("db_pool"); own.Ceiling == nil || math.Abs(*own.Ceiling-225) > 5 || *own.Limit != 10 {
			t.Errorf("a's own ceiling is %v, want 225: %q", orZero(own.Ceiling), own.Status)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
		if d := a.Dashboard(); d.measurement("api_throughput", "").Trend.Points < 20 {
			t.Errorf("trend: %+v", d.measurement("api_throughput", "").Trend)
		}
	})
}

// Errors come before saturation, and that before utilization.
func TestBottlenecksAreRankedByTrouble(t *testing.T) {
	l := newLedger(5*time.Second, 5*time.Minute)
	l.add(epoch, map[string]*vitals{"a": {Usage: map[string]usage{
		resourceKey(resourceCPU, ""):       {9, 10, 0, unknown},            // high, and nobody waits
		resourceKey(resourceWorkers, ""):   {10, 10, 5, unknown},           // full, and somebody waits
		resourceKey(resourceGC, ""):        {.1, 10, unknown, .2},          // fails
		resourceKey(resourceHTTP, ""):      {5, unknown, unknown, unknown}, // no limit
		resourceKey("another version", ""): {1, 1, 1, 1},
	}}})
	var got []string
	b := l.bottlenecks(5*time.Minute, About{})
	for _, r := range b.Resources {
		got = append(got, r.ID+" "+r.State.String())
	}
	if want := []string{"gc ok", "workers critical", "cpu warning", "http_requests unknown"}; !slices.Equal(got, want) {
		t.Errorf("ranked %q, want %q", got, want)
	}
	if !strings.HasPrefix(b.Verdict, "Garbage collection fails now: 0.2 failures/s") {
		t.Errorf("verdict %q", b.Verdict)
	}
	b.Resources = b.Resources[1:]
	if verdict := b.verdict(false); !strings.HasPrefix(verdict, "Workers is used up now: 5 wait for it") {
		t.Errorf("verdict %q", verdict)
	}
}

func TestProbe(t *testing.T) {
	p, now := newProbe(), time.Now()
	read := func(limits Limits) map[string]usage {
		out := map[string]usage{}
		now = now.Add(time.Second)
		p.read(now, limits, func(kind string, u usage) { out[kind] = u })
		return out
	}
	if first := read(Limits{}); first[resourceCPU] != (usage{}) || first[resourceGoroutines][used] < 1 || first[resourceGoroutines][limit] != unknown {
		t.Errorf("at first: %v", first)
	}
	second := read(Limits{Goroutines: 1000, Memory: 1 << 40})
	for kind, u := range second {
		if !plausible(u[:]) || u[used] < 0 || kind != resourceFiles && u[limit] <= 0 {
			t.Errorf("%s: %v", kind, u)
		}
	}
	if second[resourceMemory][limit] != 1<<40 || second[resourceGoroutines][limit] != 1000 || second[resourceCPU][limit] < 1 {
		t.Errorf("limits: %v", second)
	}
}

func TestAlertsSayWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		a, b := run(t, &CapacityOptions{Instance: "a", Store: store}), run(t, &CapacityOptions{Instance: "b", Store: store})
		defer a.stop()
		defer b.stop()
		trace := prometheus.Labels{"trace_id": "4bf92f3577b34da6"}
		pass(120, func() {
			for range 10 {
				a.http.WithLabelValues("GET /fast", "GET", "2xx").Observe(.01)
				b.http.WithLabelValues("/slow", "GET", "2xx").(prometheus.ExemplarObserver).ObserveWithExemplar(.3, trace)
			}
			a.http.WithLabelValues("/slower", "POST", "2xx").Observe(.9)
			a.tasks.WithLabelValues("normal", "pending").Set(4000)
			b.tasks.WithLabelValues("normal", "pending").Set(4000)
			a.tasks.WithLabelValues("low", "pending").Set(1000)
			a.tasks.WithLabelValues("low", "active").Set(9e9)
		})
		whys := map[string]*Why{}
		for _, alert := range a.Dashboard().Alerts {
			whys[alert.Labels["metric"]+" "+alert.Labels["severity"]] = alert.Why
		}
		slow := whys["api_latency_p95 warning"]
		if slow == nil || slow.By != "route" || len(slow.Top) != 2 || slow.Top[0].Name != "GET /slow" || slow.Top[1].Name != "POST /slower" {
			t.Fatalf("why: %+v", slow)
		}
		if math.Abs(*slow.Share-11./21) > .02 || math.Abs(slow.Top[0].Share-10./11) > .02 || slow.TraceID == nil || *slow.TraceID != "4bf92f3577b34da6" {
			t.Errorf("why: %+v %v", slow, *slow.Share)
		}
		if want := "events took longer than 0.2 s: GET /slow 91 %, POST /slower 9 %"; !strings.Contains(slow.Text, want) {
			t.Errorf("text %q, want %q", slow.Text, want)
		}
		if critical := whys["api_latency_p95 critical"]; critical != nil && critical.Top[0].Name != "POST /slower" {
			t.Errorf("the critical one is because of %+v", critical.Top)
		}
		if deep := whys["queue_depth warning"]; deep == nil || deep.Events != 5000 || len(deep.Top) != 2 || deep.Top[0] != (Contribution{"normal", 4000, 4000, .8}) || deep.Share != nil {
			t.Errorf("the queue: %+v", deep)
		}
	})
}

func TestBlameLeavesOutWhatIsNotAmong(t *testing.T) {
	f := newFixture(t)
	table := KeyMetrics().Rows
	table[slices.Index(KeyMetrics().IDs(), "api_error_rate")].Among = []string{"2xx", "5xx"}
	e := &examiner{probe: newProbe(), counts: map[string]float64{}, blamed: newBlamer(table, 5*time.Minute)}
	wanted := map[string]bool{"api_error_rate": true}
	e.examine(epoch, must(f.reg.Gather()), wanted)
	f.requests(20, .01, "2xx")
	f.requests(10, .01, "5xx")
	f.requests(1000, .01, "4xx")
	v := e.examine(epoch.Add(5*time.Second), must(f.reg.Gather()), wanted)
	if got := v.Blame[blameKey("api_error_rate", "")]; got.Events != 30 || got.Warning != 10 {
		t.Errorf("%+v, want 10 of 30", got)
	}
}

func TestBlameIsOfTheWindow(t *testing.T) {
	f := newFixture(t)
	b := newBlamer(KeyMetrics().Rows, 5*time.Minute)
	e := &examiner{probe: newProbe(), counts: map[string]float64{}, blamed: b}
	wanted := map[string]bool{"api_error_rate": true}
	key := blameKey("api_error_rate", "")
	f.requests(1000, .01, "5xx") // before: not ours to blame
	for i := range 121 {
		if i > 0 {
			f.requests(2, .01, "2xx")
		}
		if i == 1 {
			f.requests(50, .01, "5xx")
		}
		v := e.examine(epoch.Add(time.Duration(i)*5*time.Second), must(f.reg.Gather()), wanted)
		if err := v.check(); err != nil {
			t.Fatal(err)
		}
		if got := v.Blame[key]; i == 30 && (got.Warning != 50 || got.Events != 110) || i == 120 && (got.Warning != 0 || got.Events > 140) {
			t.Errorf("at tick %d: %+v", i, got)
		}
	}
}

func FuzzVitals(f *testing.F) {
	f.Add([]byte(`{"v":2,"vitals":{"every":5000,"rates":[1,-1],"usage":{"cpu\u001e":[1,2,-1,0]},"blame":{"api_error_rate\u001e":{"n":1,"w":1,"c":1,"top":[{"name":"x","n":1}]}}}}`))
	f.Add([]byte(`{"v":2,"vitals":{"rates":[1e308,1e308],"usage":{"db_pool\u001ea":[0,0,0,0]}}}`))
	table := KeyMetrics().Rows
	f.Fuzz(func(t *testing.T, blob []byte) {
		r, err := decode(blob, widths(table))
		if err != nil || r.Vitals == nil {
			return
		}
		all := map[string]*vitals{"x": r.Vitals, "y": r.Vitals}
		l := newLedger(time.Second, time.Minute)
		for i := range 3 {
			l.add(epoch.Add(time.Duration(i)*10*time.Second), all)
		}
		for _, m := range table {
			if _, err := json.Marshal(explain(m, Critical, "", all)); err != nil {
				t.Error(err)
			}
		}
		if _, err := json.Marshal(l.bottlenecks(time.Minute, About{})); err != nil {
			t.Error(err)
		}
	})
}

func TestRoster(t *testing.T) {
	r := roster{every: 5 * time.Second, seen: map[string]sighting{}}
	// b's clock is three hours ahead, c is never renewed, d has an interval of its own, and e comes and goes.
	at := func(second int) map[string]*reading {
		ms := epoch.Add(time.Duration(second) * time.Second).UnixMilli()
		all := map[string]*reading{
			"a": {Started: epoch.UnixMilli(), At: ms, Vitals: &vitals{Program: "v1.2.3"}},
			"b": {Started: epoch.UnixMilli() + 3*3600_000, At: ms + 3*3600_000},
			"c": {At: 1},
			"d": {At: int64(second/60) + 1, Vitals: &vitals{Every: 60_000}},
		}
		if second%20 == 0 {
			all["e"] = &reading{At: 7}
		}
		return all
	}
	for second := 0; second <= 300; second += 5 {
		now, readings := epoch.Add(time.Duration(second)*time.Second), at(second)
		stale := r.see(now, readings)
		if want := second > 15; slices.Equal(stale, []string{"c"}) != want {
			t.Fatalf("at %d s the stale are %v", second, stale)
		}
		if second != 290 {
			continue
		}
		m := r.members(now, readings)
		if len(m) != 3 || m[0] != (Member{"a", "v1.2.3", 0, 290, 0}) || m[1].ClockOffsetSeconds != 3*3600 || m[1].UptimeSeconds != 290 || m[2].SnapshotAgeSeconds != 50 {
			t.Errorf("members: %+v", m)
		}
	}
	if len(r.seen) > 5 {
		t.Errorf("%d are remembered", len(r.seen))
	}
}

// One tick, with all that it takes from the runtime and the operating system.
func BenchmarkTick(b *testing.B) {
	f := newFixture(b)
	c := must(NewCapacity(f.reg, &CapacityOptions{Instance: "a"}))
	e := newEvaluation(c)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(5 * time.Second)
		e.tick(context.Background(), now)
	}
}

func BenchmarkBottlenecks(b *testing.B) {
	l := newLedger(5*time.Second, 5*time.Minute)
	for i := range 2000 {
		x := float64(20 + i%60)
		l.add(epoch.Add(time.Duration(i)*5*time.Second), map[string]*vitals{"a": {Rates: [2]float64{x, 0}, Usage: map[string]usage{
			resourceKey(resourceCPU, ""): {.05 * x, 8, 0, unknown}, resourceKey(resourceDBPool, "app\x1fprimary"): {.1 * x, 10, 0, unknown},
		}}})
	}
	b.ReportAllocs()
	for b.Loop() {
		l.bottlenecks(5*time.Minute, About{})
	}
}
