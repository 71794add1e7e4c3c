package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRedisPoolIsAResource(t *testing.T) {
	reg := prometheus.NewRegistry()
	gauge := func(s Series, value float64) {
		must(NewGauge(reg, s)).WithLabelValues("cache", "r1:6379").Set(value)
	}
	gauge(RedisPoolUsed, 9)
	gauge(RedisPoolMax, 10)
	gauge(RedisPoolWaiters, 3)
	gaveUp := must(NewCounter(reg, RedisPoolTimeouts)).WithLabelValues("cache", "r1:6379")
	table := KeyMetrics().Rows
	e := &examiner{probe: newProbe(), counts: map[string]float64{}, blamed: newBlamer(table, 5*time.Minute)}
	for i, want := range []float64{unknown, 4} {
		now := epoch.Add(time.Duration(i) * 5 * time.Second)
		v := e.examine(now, must(reg.Gather()), nil)
		if got := v.Usage[resourceKey(resourceRedisPool, "cache\x1fr1:6379")]; got != (usage{9, 10, 3, want}) {
			t.Errorf("look %d: %v", i, got)
		}
		gaveUp.Add(20) // in 5 s
	}
}
