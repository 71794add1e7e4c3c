package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/metrics"
)

// jobs lists "queue type outcome ×n" and "queue type active n", sorted, without those that are zero.
func jobs(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if n := m.GetHistogram().GetSampleCount(); n > 0 {
				lines = append(lines, fmt.Sprintf("%s %s %s ×%d", labels["queue"], labels["type"], labels["outcome"], n))
			}
			if n := m.GetGauge().GetValue(); n != 0 {
				lines = append(lines, fmt.Sprintf("%s %s active %v", labels["queue"], labels["type"], n))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func newJob(t testing.TB, opts *metrics.JobOptions) (*metrics.Job, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	j, err := metrics.NewJob(reg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return j, reg
}

func TestJobOutcomes(t *testing.T) {
	j, reg := newJob(t, nil)
	mail := j.Of("critical", "mail")
	bad := errors.New("bad")
	if err := mail.Run(t.Context(), func(context.Context) error {
		if diff := cmp.Diff([]string{"critical mail active 1"}, jobs(t, reg)); diff != "" {
			t.Error(diff)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := mail.Wrap(func(context.Context) error { return bad })(t.Context()); err != bad {
		t.Errorf("error = %v, want the job's own", err)
	}
	func() {
		defer func() {
			if v := recover(); v != bad {
				t.Errorf("recovered %v, want the job's own panic", v)
			}
		}()
		_ = mail.Run(t.Context(), func(context.Context) error { panic(bad) })
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = mail.Run(context.Background(), func(context.Context) error { runtime.Goexit(); return nil })
	}()
	<-done
	mail.Begin().End(t.Context(), metrics.Requeued)
	if diff := cmp.Diff([]string{"critical mail done ×1", "critical mail failed ×3", "critical mail requeued ×1"}, jobs(t, reg)); diff != "" {
		t.Error(diff)
	}
}

func TestJobNamesAreBounded(t *testing.T) {
	j, reg := newJob(t, nil)
	for i := range 2000 {
		j.Of("q", fmt.Sprint(i)).Begin().End(t.Context(), metrics.Done)
	}
	j.Of("q", "7").Begin().End(t.Context(), metrics.Done)
	lines := jobs(t, reg)
	if len(lines) != 501 || !slices.Contains(lines, "_OTHER _OTHER done ×1500") || !slices.Contains(lines, "q 7 done ×2") {
		t.Errorf("%d lines: %v", len(lines), lines[:3])
	}
}

func TestJobExemplar(t *testing.T) {
	j, reg := newJob(t, &metrics.JobOptions{Trace: traceOf})
	ctx := context.WithValue(t.Context(), traceKey{}, "a trace")
	j.Of("q", "mail").Begin().End(ctx, metrics.Failed)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	e, ok := metric(t, "job_failed_rate").LastExemplar(families)
	if !ok || e.Trace != "a trace" || e.Labels["type"] != "mail" {
		t.Errorf("%v %+v", ok, e)
	}
}

func BenchmarkJob(b *testing.B) {
	j, _ := newJob(b, nil)
	run := j.Of("critical", "mail").Wrap(func(context.Context) error { return nil })
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_ = run(ctx)
	}
}
