package main_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/localserver"
	"github.com/scaleaware/scaleaware/internal/promserver"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	alertWindow   = 15 * time.Second
	alertInterval = 2 * time.Second
	scrapeEvery   = time.Second
)

// alertThresholds are what the faults of the test cross at once, and what chance does not.
const alertThresholds = `{
	"api_throughput":      {"warning": 10, "critical": 100000},
	"api_error_rate":      {"warning": 0.01, "critical": 0.9},
	"api_latency_p95":     {"warning": 1, "critical": 2.5},
	"api_latency_p99":     {"warning": 1.5, "critical": 3},
	"db_pool_utilization": {"warning": 0.7, "critical": 0.9},
	"db_query_time":       {"warning": 1, "critical": 2.5},
	"db_slow_queries":     {"warning": 30, "critical": 100000},
	"cache_hit_rate":      {"warning": 0.05, "critical": 0.01},
	"queue_depth":         {"warning": 50, "critical": 150},
	"job_failed_rate":     {"warning": 0.5, "critical": 0.9}
}`

// TestPrometheusAgreesWithTheDashboard breaks the platform while a real Prometheus scrapes it, with rules of the same
// table: what fires there must fire on the fleet's dashboard, and end with it.
func TestPrometheusAgreesWithTheDashboard(t *testing.T) {
	if os.Getenv("SCALEAWARE_AGREE") == "" {
		t.Skip("make agree runs this, on a machine with nothing else to do")
	}
	table := driveBy(t, alertThresholds)
	t.Setenv("DATABASE_POOL_MAX", "3") // a few callers starve it
	servers := &soak{t: t}
	servers.startServers()
	p := start(t, "-rate", "30", "-clients", "8")
	s := p.state(t)
	server, err := promserver.Open(t.Context(), promserver.Options{
		Rules: map[string][]byte{"scaleaware.rules.yml": table.Rules()}, Targets: map[string][]string{"leadplatform": targets(t, p)}, Interval: scrapeEvery,
	})
	if errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &watcher{t: t, table: table, prometheus: server, dashboard: s.Admin + dashboardPath, since: map[string]moment{}}

	w.until("Prometheus has seen a window", func(seen) bool { return w.evaluatedFor() > alertWindow })
	w.strict = true // before that, it cannot know what was slow while the platform started

	w.until("requests come", fires("APIThroughputHigh warning"))

	for _, replica := range servers.proxies[1:] {
		replica.Delay(faultconn.ToClient, 300*time.Millisecond)
	}
	w.until("the replicas are slow", fires("DBSlowQueries warning"))
	for _, replica := range servers.proxies[1:] {
		replica.Heal()
	}

	release := flood(t, s)
	w.until("the queue is flooded", fires("QueueDepthHigh critical queue=low-priority"), fires("QueueDepthHigh warning queue=low-priority"))
	killed := pidOf(t, s, "api-1")
	kill(t, killed)
	w.until("an instance starts anew", func(seen) bool {
		now, err := p.read()
		return err == nil && now.Up() && pidOf(t, now, "api-1") != killed
	}, fires("APIThroughputHigh warning"), fires("QueueDepthHigh critical queue=low-priority"))
	release()
	w.until("the queue is short again", ends("QueueDepthHigh critical queue=low-priority"), ends("QueueDepthHigh warning queue=low-priority"))
	w.until("the replicas are fast again", ends("DBSlowQueries"))

	people := startLoad(t, s.API, 6)
	unlock := lockLeads(t, s)
	w.until("writers wait for a lock and starve the pool", fires("DBPoolUtilizationHigh critical"))
	unlock()
	people.stop()
	w.until("they have waited long", fires("APILatencyP99High warning"), fires("DBSlowQueries warning"))
	w.until("the pool is free again", ends("DBPoolUtilizationHigh"))

	kill(t, redisPID(t, masterWithout(t, s, "scaleaware:fleet:{snapshots}:members")))
	w.until("a Redis master is gone", fires("APIErrorRateHigh warning"))
	w.until("its replica serves", ends("APIErrorRateHigh"))
	w.until("nothing is slow any more", ends("APILatency"), ends("DBSlowQueries"))
	w.until("both agree", func(now seen) bool { return slices.Equal(now.there, now.here) })
	t.Logf("the longest disagreement lasted %v, of %d looks %d were at a degraded dashboard", w.longest, w.looks, w.degraded)
}

// driveBy gives the programs that the test starts other thresholds and short times, and returns the same table.
func driveBy(t *testing.T, thresholds string) metrics.Table {
	t.Helper()
	changes, err := metrics.ReadOverrides(strings.NewReader(thresholds))
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	file.WriteString("{")
	table := metrics.KeyMetrics()
	table.Window, table.Interval = alertWindow, alertInterval
	for _, m := range table.Rows {
		o, changed := changes[m.ID]
		if !changed && !m.HasThresholds() {
			continue
		}
		if file.Len() > 1 {
			file.WriteString(",")
		}
		// No multiple of the interval: whether the second tick is a whole interval after the first is chance.
		writeOverride(t, &file, m.ID, o, 3*time.Second)
	}
	file.WriteString("}")
	path := filepath.Join(t.TempDir(), "thresholds.json")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("THRESHOLDS", path)
	t.Setenv("ALERT_WINDOW", alertWindow.String())
	t.Setenv("ALERT_INTERVAL", alertInterval.String())
	if changes, err = metrics.ReadOverrides(strings.NewReader(file.String())); err != nil {
		t.Fatal(err)
	}
	if table, err = table.Override(changes); err != nil {
		t.Fatal(err)
	}
	return table
}

// digest is a job of a kind that the workers know.
type digest struct {
	User string `json:"user"`
}

func (digest) Kind() string  { return "digest:send" }
func (digest) Queue() string { return "low-priority" }

// flood fills a paused queue, and returns what empties it.
func flood(t *testing.T, s lead.Platform) (release func()) {
	t.Helper()
	rdb := redisclient.New(redisclient.Options(s.Redis...))
	defer rdb.Close()
	jobs, err := queue.New(rdb, []queue.Queue{{Name: "low-priority", Weight: 1, Rate: queue.Rate{Max: 10, Per: time.Second}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	operate := func(verb string) {
		t.Helper()
		call[struct{}](t, "POST", s.Admin+"/api/v1/performance/jobs/low-priority/"+verb, "")
	}
	operate("pause")
	for range 300 {
		if _, err := jobs.Enqueue(t.Context(), digest{User: "flood"}); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		operate("drain?mode=discard&confirm=true")
		operate("resume")
	}
}

// lockLeads keeps everybody from the table until unlock is called; replicas replay the lock.
func lockLeads(t *testing.T, s lead.Platform) (unlock func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.Primary)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"BEGIN", `LOCK TABLE "Lead" IN ACCESS EXCLUSIVE MODE`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// masterWithout finds a Redis master other than the one that has key.
func masterWithout(t *testing.T, s lead.Platform, key string) string {
	t.Helper()
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: s.Redis})
	defer rdb.Close()
	keeper, err := rdb.MasterForKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	others := make(chan string, len(s.Redis))
	err = rdb.ForEachMaster(t.Context(), func(_ context.Context, master *redis.Client) error {
		if addr := master.Options().Addr; addr != keeper.Options().Addr {
			others <- addr
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	close(others)
	for addr := range others {
		return addr
	}
	t.Fatal("one Redis master has everything")
	return ""
}
