package readonly

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// Switch stops the writes of all instances that share its store. All methods are safe for concurrent use.
type Switch struct {
	store   Store
	options Options
	exempt  *http.ServeMux

	known    atomic.Pointer[State] // nil until the store was reached once
	inFlight atomic.Int64
	reached  atomic.Pointer[reach]
	changing sync.Mutex

	enabled, epoch prometheus.Gauge
	refused        *prometheus.CounterVec
	failures       *prometheus.CounterVec
}

// New returns a Switch over store. A nil store switches this process only. Nothing is read before Run.
func New(store Store, options *Options) (*Switch, error) {
	s := &Switch{store: store, options: options.withDefaults()}
	if store == nil {
		s.store = NewMemory()
	}
	errs := []error{s.options.validate()}
	var err error
	s.exempt, err = exemptions(s.options.Exempt)
	errs = append(errs, err)
	errs = append(errs, s.instrument())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Switch) instrument() error {
	reg := s.options.Registerer
	enabled, err1 := metrics.NewGauge(reg, metrics.ReadOnlyEnabled)
	epoch, err2 := metrics.NewGauge(reg, metrics.ReadOnlyEpoch)
	refused, err3 := metrics.NewCounter(reg, metrics.ReadOnlyRefused)
	failures, err4 := metrics.NewCounter(reg, metrics.BackgroundErrors)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	s.enabled, s.epoch = enabled.WithLabelValues(), epoch.WithLabelValues()
	s.refused, s.failures = refused, failures
	return nil
}

// AllowWrite returns nil when writes are allowed, or a *RefusedError. It costs one atomic load.
func (s *Switch) AllowWrite(context.Context) error {
	if err := s.check(); err != nil {
		s.refused.WithLabelValues("check").Inc()
		return err
	}
	return nil
}

func (s *Switch) check() error {
	state := s.known.Load()
	switch {
	case state == nil && s.options.AssumeWritable:
		return nil
	case state == nil:
		return &RefusedError{}
	case state.Enabled && state.refuses(time.Now()):
		return &RefusedError{State: *state}
	}
	return nil
}

// State returns what this instance obeys, and whether it has reached the store at all.
func (s *Switch) State() (state State, known bool) {
	if p := s.known.Load(); p != nil {
		return *p, true
	}
	return State{}, false
}

// Change says how to enable the mode.
type Change struct {
	// Reason is shown to whoever is refused. Zero means none.
	Reason string
	// Until ends the mode by itself. Zero means that somebody must.
	Until time.Time
	// Actor is who asks. Zero means unknown.
	Actor string

	incident bool
}

// Enable stops writes everywhere and waits up to Options.AckWait for every living instance to say so. Enabling what is
// enabled changes its reason and end. The Report tells who has not answered; that is not an error, because an
// instance may have died without telling.
func (s *Switch) Enable(ctx context.Context, c Change) (Report, error) {
	if !c.Until.IsZero() && !c.Until.After(time.Now()) {
		return Report{}, fmt.Errorf("readonly: until %s has passed, give a time to come or none", c.Until.UTC().Format(time.RFC3339))
	}
	return s.change(ctx, State{Enabled: true, Reason: c.Reason, Actor: c.Actor, Until: c.Until, Incident: c.incident})
}

// Disable allows writes again. Disabling what is disabled changes nothing.
func (s *Switch) Disable(ctx context.Context, actor string) (Report, error) {
	return s.change(ctx, State{Actor: actor})
}

func (s *Switch) change(ctx context.Context, next State) (Report, error) {
	incident := next.Incident
	s.changing.Lock()
	defer s.changing.Unlock()
	for {
		stored, err := s.store.Load(ctx)
		if err != nil {
			return Report{}, fmt.Errorf("readonly: nothing was changed, the store does not answer: %w", err)
		}
		s.adopt(stored)
		mine, _ := s.State()
		// Repeating the mode under stress must not make an incident forget what it has to undo.
		next.Incident = next.Enabled && (incident || mine.Enabled && mine.Incident)
		if next.Enabled == mine.Enabled && next.Reason == mine.Reason && next.Until.Equal(mine.Until) && next.Incident == mine.Incident && mine.Epoch > 0 {
			return s.await(ctx, mine)
		}
		next.Epoch, next.ID = max(stored.Epoch, mine.Epoch)+1, rand.Text()
		next.Since = time.Now().UTC().Truncate(time.Millisecond)
		won, err := s.store.Save(ctx, next)
		if err != nil {
			return Report{}, fmt.Errorf("readonly: whether the change was stored is unknown, read the mode and repeat: %w", err)
		}
		s.adopt(won)
		if won.ID == next.ID {
			s.options.Logger.Warn("read-only mode changed", "enabled", next.Enabled, "reason", next.Reason, "actor", next.Actor, "epoch", next.Epoch, "until", next.Until)
			return s.await(ctx, next)
		}
	}
}

// adopt obeys what the store says unless a later epoch is known. Of two changes with one epoch, the store's counts.
func (s *Switch) adopt(state State) {
	for {
		old := s.known.Load()
		if old != nil && (old.Epoch > state.Epoch || *old == state) {
			break
		}
		if s.known.CompareAndSwap(old, &state) {
			break
		}
	}
	now, _ := s.State()
	s.epoch.Set(float64(now.Epoch))
	s.enabled.Set(0)
	if now.refuses(time.Now()) {
		s.enabled.Set(1)
	}
}
