package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/internal/localserver"
	"github.com/scaleaware/scaleaware/internal/promserver"
)

// quick is the table with times that a test can wait for.
func quick(t *testing.T) Table {
	t.Helper()
	table := KeyMetrics()
	table.Window, table.Interval = 10*time.Second, time.Second
	changes := map[string]Override{}
	for _, m := range table.Rows {
		if m.HasThresholds() {
			changes[m.ID] = Override{WarningFor: new(3 * time.Second), CriticalFor: new(2 * time.Second), KeepFiringFor: new(time.Duration(0))}
		}
	}
	table, err := table.Override(changes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// unreachable is what a process cannot tell of itself.
const unreachable = "the process cannot be scraped"

// A real Prometheus loads the rules beside the runbook's, scrapes this process and raises what the process itself raises.
func TestRealPrometheusAgrees(t *testing.T) {
	table := quick(t)
	reg := prometheus.NewRegistry()
	depth := must(NewGauge(table.Registerer(reg), QueueTasks)).WithLabelValues("normal", "pending")
	hits := must(NewCounter(table.Registerer(reg), CacheRequests))
	target := httptest.NewServer(Handler(reg))
	defer target.Close()
	capacity := must(NewCapacity(reg, &CapacityOptions{Table: table, Interval: time.Second, Instance: "a", Registerer: reg}))

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	runbook, err := os.ReadFile("testdata/runbook.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	server, err := promserver.Open(ctx, promserver.Options{
		Rules:   map[string][]byte{"scaleaware.rules.yml": bytes.ReplaceAll(table.Rules(), []byte("for: 2m"), []byte("for: 2s")), "runbook.rules.yml": runbook},
		Targets: map[string][]string{"api": {strings.TrimPrefix(target.URL, "http://")}},
	})
	if errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	ended := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	go func() { ended <- capacity.Run(running) }()
	defer func() { stop(); <-ended }()

	hits.WithLabelValues("lead", "l2").Add(0)
	until := func(what string, work func(), want ...string) {
		t.Helper()
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		var there, here []string
		for {
			work()
			there, here = promFiring(t, ctx, server), firingHere(capacity)
			if slices.Equal(there, want) && (slices.Equal(here, want) || what == unreachable) {
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				t.Fatalf("%s: Prometheus fires %v and the process %v, want %v", what, there, here, want)
			}
		}
	}
	// Not at one moment, but soon: the two do not evaluate at the same time.
	until("all is well", func() { depth.Set(10); hits.WithLabelValues("lead", "l2").Inc() })
	until("the queue is flooded", func() { depth.Set(6000); hits.WithLabelValues("lead", "l2").Inc() },
		"QueueDepthHigh critical queue=normal", "QueueDepthHigh warning queue=normal")
	until("the cache misses as well", func() { depth.Set(2000); hits.WithLabelValues("lead", "miss").Inc() },
		"CacheHitRateLow critical", "CacheHitRateLow warning", "QueueDepthHigh warning queue=normal")
	until("all is well again", func() { depth.Set(10); hits.WithLabelValues("lead", "l2").Inc() })
	target.Close()
	until(unreachable, func() { depth.Set(10) }, "ScaleawareTargetDown warning")

	rules, err := server.Rules(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Health != "ok" {
			t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
		}
	}
	if len(rules) != len(table.rules())+4 {
		t.Errorf("%d rules were loaded, want %d and the runbook's four", len(rules), len(table.rules()))
	}
}

func promFiring(t *testing.T, ctx context.Context, server *promserver.Server) (firing []string) {
	t.Helper()
	alerts, err := server.Alerts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		if a.State == "firing" {
			firing = append(firing, nameOf(a.Labels))
		}
	}
	slices.Sort(firing)
	return firing
}

func firingHere(c *Capacity) (firing []string) {
	for _, a := range c.Dashboard().Alerts {
		if a.State == "firing" {
			firing = append(firing, nameOf(a.Labels))
		}
	}
	slices.Sort(firing)
	return firing
}

func nameOf(labels map[string]string) string {
	name := labels["alertname"] + " " + labels["severity"]
	for _, scope := range []string{"pool", "queue", "server"} {
		if v := labels[scope]; v != "" {
			name += fmt.Sprintf(" %s=%s", scope, v)
		}
	}
	return name
}
