package metrics

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// missedSamples is how many samples in a row may be missed before the sampled series are taken away: an old number
// looks like a calm server.
const missedSamples = 3

// Lease is held by one process of a fleet at a time. redisclient.Lease is one.
type Lease interface {
	// Hold takes or keeps the lease, and reports whether this process has it.
	Hold(ctx context.Context) (bool, error)
	// Release gives it up, so that another process need not wait for its end.
	Release(ctx context.Context) error
}

// Sampler keeps series that are the same for the whole fleet, such as a queue's depth: one process looks, away from the
// scrape path, and all others have none of them. When that process dies, another one takes over within the lease's
// length. When three looks in a row fail, the series go, and the others get a turn.
type Sampler struct {
	pkg     string
	task    string
	every   time.Duration
	sample  func(context.Context) error
	forget  func()
	lease   Lease
	failed  func(error)
	success *prometheus.GaugeVec

	// Run's own:
	began   time.Time
	missed  int  // in a row
	shown   bool // something may have been set and was not taken away since
	resting bool // one turn is left to others
	told    bool // when it last succeeded
}

// SamplerOptions are NewSampler's options.
type SamplerOptions struct {
	// Interval is the time between two samples, and the most that one may take. Zero means 10 s.
	Interval time.Duration
	// Lease makes one process of the fleet sample. Zero means that each samples for itself.
	Lease Lease
	// Failed is told of failures. Zero means nobody.
	Failed func(error)
	// Registerer exports when the last sample succeeded. Zero means that it is not exported.
	Registerer prometheus.Registerer
}

// NewSampler makes a sampler: sample looks and sets series, forget takes them away; both are called by Run's goroutine
// alone. Between a success and forget, a failed sample leaves what is shown as it is. pkg and task are labels, which tell it from others.
func NewSampler(pkg, task string, sample func(context.Context) error, forget func(), opts *SamplerOptions) (*Sampler, error) {
	o := SamplerOptions{}
	if opts != nil {
		o = *opts
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	var errs []error
	if pkg == "" || task == "" || sample == nil || forget == nil {
		errs = append(errs, errors.New("metrics: NewSampler needs a package, a task, a sample and a forget function"))
	}
	if o.Interval < 0 {
		errs = append(errs, fmt.Errorf("metrics: SamplerOptions.Interval is %v, give a positive one or 0 for the default", o.Interval))
	}
	success, err := NewGauge(o.Registerer, SamplerSuccess)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	return &Sampler{pkg: pkg, task: task, every: o.Interval, sample: sample, forget: forget, lease: o.Lease, failed: o.Failed, success: success}, nil
}

// Run samples until ctx ends, takes the series away, gives up the lease and returns nil.
func (s *Sampler) Run(ctx context.Context) error {
	s.began = time.Now()
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	defer s.leave(ctx)
	for {
		s.tick(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (s *Sampler) tick(ctx context.Context) {
	if s.resting {
		s.resting = false
		return
	}
	held, err := s.look(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.failed(err)
		if held && !s.told { // whoever has failed from the start is to be noticed, too
			s.succeeded(s.began)
		}
		if s.missed++; s.missed < missedSamples {
			return
		}
		s.hide()
		if held && s.lease != nil { // perhaps another process can see what this one cannot
			s.release(ctx)
			s.resting = true
		}
	case !held:
		s.missed = 0
		s.hide() // they are another one's now
		s.told = false
		s.success.DeleteLabelValues(s.pkg, s.task)
	default:
		s.missed = 0
		s.succeeded(time.Now())
	}
}

func (s *Sampler) succeeded(at time.Time) {
	s.told = true
	s.success.WithLabelValues(s.pkg, s.task).Set(float64(at.UnixMilli()) / 1000)
}

// hide takes away only what this sampler shows: another one in this process may show the same series.
func (s *Sampler) hide() {
	if s.shown {
		s.forget()
	}
	s.shown = false
}

// look samples if this process holds the lease.
func (s *Sampler) look(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.every)
	defer cancel()
	if s.lease != nil {
		if held, err = s.lease.Hold(ctx); err != nil || !held {
			return false, err
		}
	}
	s.shown = true // also a sample that is broken off may have set something
	return true, s.sample(ctx)
}

func (s *Sampler) leave(ctx context.Context) {
	s.hide()
	s.success.DeleteLabelValues(s.pkg, s.task)
	if s.lease != nil {
		s.release(ctx)
	}
}

func (s *Sampler) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.lease.Release(ctx) // it ends by itself
}
