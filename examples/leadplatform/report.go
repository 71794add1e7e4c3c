package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/metrics"
)

// Report prints what the clients see and what the fleet does, a line every few seconds.
type Report struct {
	traffic *Traffic
	fleet   *Fleet
	service *lead.Service
	token   string
}

const reportEvery = 5 * time.Second

// Run prints until ctx ends.
func (r *Report) Run(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	before := counts{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := r.scrape(ctx)
		fmt.Println(r.line(ctx, now.since(before)))
		before = now
	}
}

func (r *Report) line(ctx context.Context, c counts) string {
	seen := r.traffic.tally.Take()
	mode := ""
	if r.service.ReadOnly(ctx) {
		mode = "  READ-ONLY"
	}
	return fmt.Sprintf("%s  %4.0f req/s  p95 %4d ms  errors %d  refused %d  stale %d  reads on replicas %s  cache hits %s  waiting %d  workers %d%s",
		time.Now().Format("15:04:05"), float64(len(seen.Durations))/reportEvery.Seconds(), seen.Quantile(0.95).Milliseconds(),
		seen.Errors, seen.Refused, seen.Stale, share(c.onReplicas, c.reads), share(c.hits, c.lookups), r.service.Waiting(ctx), r.fleet.Workers(), mode)
}

func share(part, whole float64) string {
	if whole <= 0 {
		return "  –"
	}
	return fmt.Sprintf("%3.0f%%", 100*part/whole)
}

// counts are sums over all processes.
type counts struct{ reads, onReplicas, lookups, hits float64 }

// since tolerates processes that were started anew and count from zero.
func (c counts) since(b counts) counts {
	return counts{max(0, c.reads-b.reads), max(0, c.onReplicas-b.onReplicas), max(0, c.lookups-b.lookups), max(0, c.hits-b.hits)}
}

func (r *Report) scrape(ctx context.Context) (c counts) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, child := range r.fleet.Children() {
		at, _ := child.Addresses()
		if at.Admin == "" {
			continue
		}
		families, err := r.families(ctx, at.Admin)
		if err != nil {
			continue // it is going or coming; the next line has it
		}
		for _, m := range families[metrics.DBReads.Name].GetMetric() {
			c.reads += m.GetCounter().GetValue()
			if label(m, "role") == "replica" {
				c.onReplicas += m.GetCounter().GetValue()
			}
		}
		for _, m := range families[metrics.CacheRequests.Name].GetMetric() {
			c.lookups += m.GetCounter().GetValue()
			if label(m, "result") != "miss" {
				c.hits += m.GetCounter().GetValue()
			}
		}
	}
	return c
}

func (r *Report) families(ctx context.Context, addr string) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(resp.Body)
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
