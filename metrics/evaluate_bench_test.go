package metrics

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// busy is a registry of a process with 100 routes, and of what else the table looks at.
func busy(tb testing.TB) *fixture {
	f := newFixture(tb)
	for i := range 100 {
		for _, code := range []string{"2xx", "5xx"} {
			f.http.WithLabelValues(fmt.Sprintf("/leads/%d", i), "GET", code).Observe(.01)
		}
	}
	for _, queue := range []string{"critical", "normal", "low-priority"} {
		f.jobs.WithLabelValues(queue, "score", "done").Observe(1)
		f.tasks.WithLabelValues(queue, "pending").Set(10)
	}
	for i := range 6 {
		f.evicted.WithLabelValues(fmt.Sprint("redis-", i)).Add(1)
	}
	f.queries.WithLabelValues("app", "get").Observe(.01)
	f.lookups.WithLabelValues("lead", "miss").Inc()
	f.acquired.WithLabelValues("app", "primary").Set(1)
	f.limit.WithLabelValues("app", "primary").Set(10)
	f.size.WithLabelValues("leads").Set(1e9)
	return f
}

// BenchmarkEvaluate evaluates 24 alerts and more of one instance at the default interval: samples in, values and states out.
func BenchmarkEvaluate(b *testing.B) {
	f := busy(b)
	table := KeyMetrics().Rows
	c := newCollector(table)
	w := newWindow(table, 5*time.Minute, false)
	a, v := alerts{}, results{}
	const ticks = 7 * 3600 / 5 // until the window is full
	now, points := epoch, f.collect(b, c)
	made := make([]reading, ticks+2) // by collect, so that its allocations are not the evaluator's
	readings := map[string]*reading{}
	n := 0
	tick := func() {
		now = now.Add(5 * time.Second)
		own := &made[n%len(made)]
		n++
		*own = reading{Started: epoch.UnixMilli(), At: now.UnixMilli(), Points: points}
		readings["a"] = own
		w.add(frame{at: now, readings: readings})
		w.evaluate(v, table, "")
		a.tick(now, table, v)
	}
	for range ticks {
		tick()
	}
	b.ReportAllocs()
	for b.Loop() {
		tick()
	}
}

// BenchmarkCollect is what is done before a tick: gather 100 routes and reduce them. There is no I/O in it.
func BenchmarkCollect(b *testing.B) {
	f := busy(b)
	c := newCollector(KeyMetrics().Rows)
	b.Run("gather", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := f.reg.Gather(); err != nil {
				b.Fatal(err)
			}
		}
	})
	families := must(f.reg.Gather())
	b.Run("reduce", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.collect(families)
		}
	})
}

// BenchmarkRing reports the memory that a window of one instance takes when it is full.
func BenchmarkRing(b *testing.B) {
	f := busy(b)
	table := KeyMetrics().Rows
	c := newCollector(table)
	points := f.collect(b, c)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := memory()
		w := newWindow(table, 5*time.Minute, false)
		for i := range 7 * 3600 / 5 {
			at := epoch.Add(time.Duration(i) * 5 * time.Second)
			w.add(frame{at: at, readings: map[string]*reading{"a": {At: at.UnixMilli(), Points: points}}})
		}
		b.ReportMetric(float64(memory()-before), "bytes")
		runtime.KeepAlive(&w)
	}
}
