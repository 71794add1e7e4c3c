package metrics

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestBottlenecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, &CapacityOptions{Instance: "a"})
		defer r.stop()
		pass(10, func() { r.requests(1, .01, "2xx") })
		if b := r.Bottlenecks(); b.Verdict != "not enough data" {
			t.Errorf("after 10 requests the verdict is %q", b.Verdict)
		}
		r.limit.WithLabelValues("app", "primary").Set(10)
		r.slots.WithLabelValues().Set(20)
		second := 0
		pass(400, func() {
			second++
			r.requests(100, .01, "2xx")
			r.acquired.WithLabelValues("app", "primary").Set(float64(4 + 2*(second/5%2))) // 5 on average
			for range 4 {
				r.jobs.WithLabelValues("normal", "score", "done").Observe(.5) // 2 slots busy
			}
		})
		b := r.Bottlenecks()
		if len(b.Resources) != 2 || b.Resources[0].ID != "db_pool" || b.Resources[1].ID != "workers" {
			t.Fatalf("resources: %+v", b.Resources)
		}
		pool, workers := b.Resources[0], b.Resources[1]
		near := func(what string, got *float64, want float64) {
			t.Helper()
			if got == nil || math.Abs(*got-want) > want*.05 {
				t.Errorf("%s is %v, want %v", what, got, want)
			}
		}
		near("throughput", b.Throughput, 100)
		near("the pool's utilization", pool.Utilization, .5)
		near("the pool's headroom", pool.Headroom, .5)
		near("the pool's ceiling", pool.Ceiling, 200)
		near("the workers' utilization", workers.Utilization, .1)
		near("the workers' ceiling", workers.Ceiling, 1000)
		if !strings.HasPrefix(b.Verdict, "Connection pool utilization app limits first, at about ") || pool.Step == "" || len(pool.Evidence) == 0 {
			t.Errorf("verdict %q, pool %+v", b.Verdict, pool)
		}
	})
}

func TestBottlenecksOfOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		cpu := prometheus.NewCounter(prometheus.CounterOpts{Name: processCPU.Name, Help: processCPU.Help})
		f.reg.MustRegister(cpu)
		active := must(NewGauge(f.reg, HTTPActiveRequests))
		used, limit := must(NewGauge(f.reg, CacheMemoryUsed)), must(NewGauge(f.reg, CacheMemoryMax))
		cpu.Add(1e6) // before: not ours to report
		c := must(NewCapacity(f.reg, &CapacityOptions{Instance: "a"}))
		r := &running{f, c, nil}
		e := newEvaluation(c)
		e.collector.cores = 4
		for second := range 400 {
			cpu.Add(3)
			r.requests(60, .01, "2xx")
			active.WithLabelValues().Set(12)
			used.WithLabelValues("r1").Set(85)
			limit.WithLabelValues("r1").Set(100)
			if second%5 == 0 {
				e.tick(t.Context(), epoch.Add(time.Duration(second)*time.Second))
			}
		}
		b := e.report.Load()[instanceReach].bottlenecks
		got := ""
		for _, r := range b.Resources {
			got += r.ID + " " + r.State.String() + " " + r.Status[:2] + "; "
		}
		if want := "cpu warning ok; cache_memory warning ok; http_requests unknown no; "; got != want {
			t.Fatalf("resources %s\n want %s", got, want)
		}
		if c := b.Resources[0]; math.Abs(*c.Utilization-.75) > .001 || math.Abs(*c.Ceiling-80) > .1 {
			t.Errorf("CPU at %v with a ceiling of %v, want .75 and 60/.75", *c.Utilization, *c.Ceiling)
		}
		if b.Resources[1].Ceiling != nil || math.Abs(*b.Resources[1].Utilization-.85) > .001 {
			t.Errorf("cache memory: %+v", b.Resources[1])
		}
	})
}

func TestBottlenecksDoNotPretend(t *testing.T) {
	half, little := .5, .01
	rate := 100.0
	for name, test := range map[string]struct {
		resource Resource
		requests float64
		frames   int
		want     string
	}{
		"enough":             {Resource{Utilization: &half}, 1000, 60, "ok"},
		"no limit":           {Resource{}, 1000, 60, "not enough data: its limit is not known"},
		"too early":          {Resource{Utilization: &half}, 1000, 19, "not enough data: 19 observations"},
		"too few requests":   {Resource{Utilization: &half}, 99, 60, "not enough data: 99 requests"},
		"too little of it":   {Resource{Utilization: &little}, 1000, 60, "not enough data: 1.0 %"},
		"not about requests": {Resource{ID: "cache_memory", Utilization: &half}, 1000, 60, "ok: what it holds"},
	} {
		test.resource.rate(&rate, test.requests, test.frames)
		if !strings.HasPrefix(test.resource.Status, test.want) || (test.resource.Ceiling != nil) != (name == "enough") {
			t.Errorf("%s: status %q, ceiling %v", name, test.resource.Status, test.resource.Ceiling)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	f := newFixture(b)
	c := must(NewCapacity(f.reg, &CapacityOptions{Instance: "a"}))
	e := newEvaluation(c)
	now := time.Now()
	for range 61 {
		f.requests(10, .01, "2xx")
		now = now.Add(5 * time.Second)
		e.tick(b.Context(), now)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.evaluate(now, "", "")
	}
}
