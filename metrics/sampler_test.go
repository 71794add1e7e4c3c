package metrics_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/metrics"
)

// lease is what a fleet of test processes share.
type lease struct {
	mu     sync.Mutex
	holder *member
	err    error
}

type member struct{ of *lease }

func (m *member) Hold(context.Context) (bool, error) {
	handOver()
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	if m.of.err != nil {
		return false, m.of.err
	}
	if m.of.holder == nil {
		m.of.holder = m
	}
	return m.of.holder == m, nil
}

func (m *member) Release(context.Context) error {
	handOver()
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	if m.of.holder == m {
		m.of.holder = nil
	}
	return nil
}

// sampled is one process: what it shows, and how its next samples end.
type sampled struct {
	shown  int // 0 is absent
	looks  int
	fail   error
	hang   bool
	failed []error
	reg    *prometheus.Registry
	stop   func()
}

func (p *sampled) start(t *testing.T, l metrics.Lease) {
	t.Helper()
	p.reg = prometheus.NewRegistry()
	s, err := metrics.NewSampler("test", "sample", func(ctx context.Context) error {
		handOver()
		p.looks++
		if p.hang {
			<-ctx.Done()
			return ctx.Err()
		}
		if p.fail == nil {
			p.shown = p.looks
		}
		return p.fail
	}, func() {
		handOver()
		p.shown = 0
	}, &metrics.SamplerOptions{
		Interval: time.Second, Lease: l, Registerer: p.reg,
		Failed: func(err error) {
			handOver()
			p.failed = append(p.failed, err)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	synctest.Wait()
}

// handover lets the samplers' goroutines see what the test did before them. What they did, the test sees by synctest.Wait.
var handover sync.Mutex

func handOver() {
	handover.Lock()
	defer handover.Unlock()
}

// after lets so many intervals pass, and what happens at their end too.
func after(n int) {
	handOver()
	time.Sleep(time.Duration(n) * time.Second)
	synctest.Wait()
}

// freshness is how old the last success is, or -1 where none is exported.
func (p *sampled) freshness(t *testing.T) time.Duration {
	t.Helper()
	families, err := p.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == metrics.SamplerSuccess.Name {
			return time.Since(time.UnixMilli(int64(1000 * f.GetMetric()[0].GetGauge().GetValue()))).Round(time.Second)
		}
	}
	return -1
}

func TestSamplerForgetsAfterThreeMisses(t *testing.T) {
	for name, fail := range map[string]func(p *sampled, l *lease, err error){
		"sample": func(p *sampled, _ *lease, err error) { p.fail = err },
		"hang":   func(p *sampled, _ *lease, err error) { p.hang = err != nil },
		"lease":  func(_ *sampled, l *lease, err error) { l.err = err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, l := new(sampled), new(lease)
				p.start(t, &member{l})
				defer func() { p.stop() }()
				after(1)
				if p.shown != 2 || p.freshness(t) != 0 {
					t.Fatalf("shown %d, %v old", p.shown, p.freshness(t))
				}
				fail(p, l, errors.New("down"))
				misses := 2
				if name == "hang" {
					misses++ // the first one ends an interval later
				}
				after(misses)
				if p.shown == 0 || len(p.failed) != 2 {
					t.Errorf("shown %d after %d misses", p.shown, len(p.failed))
				}
				after(1)
				if p.shown != 0 || len(p.failed) != 3 {
					t.Errorf("shown %d after %d misses", p.shown, len(p.failed))
				}
				after(60)
				if got := p.freshness(t); got < time.Minute {
					t.Errorf("the last success is %v old", got)
				}
				fail(p, l, nil)
				after(2)
				if p.shown == 0 || p.freshness(t) > time.Second {
					t.Errorf("not shown again, %v old", p.freshness(t))
				}
			})
		})
	}
}

func TestSamplerIsOneOfTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(lease)
		a, b := new(sampled), new(sampled)
		a.start(t, &member{l})
		b.start(t, &member{l})
		after(5)
		if a.shown == 0 || b.looks != 0 || b.freshness(t) != -1 || len(b.failed) != 0 {
			t.Fatalf("a shows %d; b has looked %d times, failed %v", a.shown, b.looks, b.failed)
		}
		a.stop()
		if a.shown != 0 || a.freshness(t) != -1 {
			t.Error("a still shows what it saw")
		}
		after(1)
		if b.shown == 0 || b.freshness(t) != 0 {
			t.Error("b has not taken over")
		}
		l.holder = new(member) // as when b stood still for too long
		after(1)
		if b.shown != 0 || b.freshness(t) != -1 {
			t.Error("b shows what another process samples")
		}
		b.stop()
	})
}

func TestSamplerForgetsWhatABrokenOffSampleSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set, forgotten := false, false
		s, err := metrics.NewSampler("test", "sample", func(ctx context.Context) error {
			set = true
			<-ctx.Done()
			return ctx.Err()
		}, func() { forgotten = true }, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || !set || !forgotten {
			t.Errorf("Run = %v, set %v, forgotten %v", err, set, forgotten)
		}
	})
}

// What the holder cannot see, another process may.
func TestSamplerThatFailsGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(lease)
		a, b := &sampled{fail: errors.New("cut off")}, new(sampled)
		a.start(t, &member{l})
		time.Sleep(time.Second / 2) // or else both would tick at once, in either order
		b.start(t, &member{l})
		after(1)
		if b.looks != 0 {
			t.Fatal("b has looked already")
		}
		after(2)
		if b.shown == 0 || len(a.failed) != 3 {
			t.Errorf("b shows %d after %d failures of a", b.shown, len(a.failed))
		}
		a.stop()
		b.stop()
	})
}

func TestNewSamplerRefusesNonsense(t *testing.T) {
	if _, err := metrics.NewSampler("", "", nil, nil, &metrics.SamplerOptions{Interval: -1}); err == nil {
		t.Error("no error")
	}
}
