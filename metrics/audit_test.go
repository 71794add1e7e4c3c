package metrics

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// promtool cannot know which series exist: a rule over a misspelt one is valid and silent for ever.
func TestAuditOfTheTable(t *testing.T) {
	if err := KeyMetrics().Audit(); err != nil {
		t.Error(err)
	}
	if n := len(KeyMetrics().rules()); n < 47 {
		t.Errorf("only %d rules were audited", n)
	}
}

func TestAuditFindsMistakes(t *testing.T) {
	row := func(id string, change func(*KeyMetric)) func(*Table) {
		return func(t *Table) { change(&t.Rows[slices.Index(t.IDs(), id)]) }
	}
	for name, test := range map[string]struct {
		change func(*Table)
		want   string
	}{
		"a threshold that is no boundary": {row("api_latency_p95", func(m *KeyMetric) { m.Warning = .25 }), "0.25 must be a bucket boundary"},
		"divides by other labels":         {row("cache_memory", func(m *KeyMetric) { m.Of = DBPoolMax }), "labels of both sides of / never match"},
		"the rate of a gauge":             {row("cache_evictions", func(m *KeyMetric) { m.Series = CacheMemoryUsed }), "rate of a gauge"},
		"the quantile of a counter":       {row("api_latency_p95", func(m *KeyMetric) { m.Series = CacheRequests; m.Warning, m.WarningFor = 0, 0 }), "nobody exports cache_requests_total_bucket"},
	} {
		t.Run(name, func(t *testing.T) {
			table := KeyMetrics()
			test.change(&table)
			err := table.Audit()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Audit: %v, want %q", err, test.want)
			}
		})
	}
}

func TestAuditOfExpressions(t *testing.T) {
	a := newAudit(KeyMetrics().withDefaults())
	for text, want := range map[string]string{
		`sum by (queue) (queue_tasks{state="x"})`:                           "",
		`sum by (queue) (queue_task)`:                                       "nobody exports queue_task",
		`queue_tasks{stat="x"}`:                                             "queue_tasks has no label stat",
		`sum by (pool) (queue_tasks)`:                                       "sum by pool, which is not there",
		`max without (queue) (queue_tasks) / cache_evicting`:                "never match: [instance job state] and [instance job server]",
		`max by (queue) (queue_tasks) / on (state) queue_tasks`:             "/ on state, which one side has not",
		`queue_tasks * on (queue) group_left sum by (queue) (queue_tasks)`:  "",
		`rate(queue_tasks[5m])`:                                             "rate of a gauge",
		`deriv(cache_loads_total[5m])`:                                      "deriv of a gauge or a counter",
		`rate(cache_loads_total)`:                                           "rate gets what it cannot take",
		`sum(cache_loads_total[5m])`:                                        "sum needs a vector",
		`cache_loads_total[5m]`:                                             "a range is no result",
		`label_join(db_pool_max_connections, "x", "/", "pool", "node")`:     "which is not there",
		`label_join(db_pool_max_connections, "x", "/")`:                     "needs a label",
		`histogram_quantile(0.5, sum(rate(job_duration_seconds_sum[5m])))`:  "needs the label le",
		`job_duration_seconds`:                                              "nobody exports job_duration_seconds:",
		`job_duration_seconds_bucket{le="30"}`:                              "",
		`job_duration_seconds_bucket{le=~"30|30\\.0"}`:                      "",
		`job_duration_seconds_bucket{le="31"}`:                              "31 must be a bucket boundary",
		`job_duration_seconds_bucket{le="600"}`:                             "600 must be a bucket boundary",
		`job_duration_seconds_bucket{le=~"x|1"}`:                            "no list of numbers",
		`label_replace(up, "a", "b", "c", "d")`:                             "label_replace is not known",
		`queue_tasks ! 1`:                                                   "cannot read on",
		`(1)[5m:1m]`:                                                        "a subquery needs a vector",
		`rate()`:                                                            "rate needs an argument",
		`sum()`:                                                             "sum needs an argument",
		`time() - up > 5 and absent(queue_tasks)`:                           "never match",
		`up == 0 and on (job) group by (job) (last_over_time(up[1h]))`:      "",
		`max_over_time(queue_tasks[5m]) + ignoring (state) db_size_bytes`:   "never match",
		`-(queue_tasks[5m]) + 1`:                                            "between ranges",
		`topk(3, sum by (cache) (rate(cache_loads_total[5m]))) / vector(1)`: "never match",
	} {
		_, err := a.read(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// A worker has no HTTP: that is said, and no mistake. Buckets that are not the table's are one.
func TestAuditOfWhatIsRegistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, err := KeyMetrics().Override(map[string]Override{"job_time": {Warning: new(20.)}})
		if err != nil {
			t.Fatal(err)
		}
		reg, own := prometheus.NewRegistry(), prometheus.NewRegistry()
		jobs := must(NewHistogram(reg, JobDuration)) // not by way of the table
		must(NewGauge(reg, QueueTasks))              // registered, and nothing in it yet
		must(NewGauge(reg, DBPoolAcquired))          // and what it is divided by is not
		var log bytes.Buffer
		c := must(NewCapacity(reg, &CapacityOptions{Table: table, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: own}))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go c.Run(ctx)
		pass(10, nil)
		missing := c.Dashboard().Unmeasured
		if diff := cmp.Diff([]string{"queue_depth", "job_time", "job_failed_rate"}, without(KeyMetrics().IDs(), missing)); diff != "" {
			t.Errorf("measured: %s", diff)
		}
		if n := strings.Count(log.String(), "level=INFO"); n != 1 || !strings.Contains(log.String(), "api_latency_p95 api_latency_p99") {
			t.Errorf("the log: %s", log.String())
		}
		if n := counted(t, own, BackgroundErrors.Name); n != 0 {
			t.Errorf("%v failures without any", n)
		}
		jobs.WithLabelValues("q", "t", "done").Observe(1)
		pass(10, nil)
		if n := counted(t, own, BackgroundErrors.Name); n == 0 || !strings.Contains(log.String(), "job_duration_seconds has other buckets than the table") {
			t.Errorf("%v failures for buckets that are not the table's: %s", n, log.String())
		}
		must(NewCounter(reg, CacheRequests)).WithLabelValues("a", "miss").Inc() // a package that begins later
		pass(10, nil)
		if slices.Contains(c.Dashboard().Unmeasured, "cache_hit_rate") {
			t.Error("the hit rate is measured now")
		}
	})
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}
