package readonly

import (
	"context"
	"errors"
	"net/http"
	"slices"
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
	closed   atomic.Pointer[State] // what refuses writes, nil when nothing does: all that a write looks at
	unknown  *State                // is closed until the store was reached
	writes   counter               // those that began while nothing refused them
	allowed  counter               // those that the state refuses to others, as of staff
	adopting sync.Mutex
	left     atomic.Bool   // Run has ended: closed is unknown for good; adopting guards its changes
	changed  chan struct{} // is closed with the next change; adopting guards it
	counts   counts
	said     atomic.Pointer[Ack] // what the others were told last
	made     time.Time
	heard    atomic.Int64 // when the store was last asked with success, in ns since made
	adopted  atomic.Int64 // when this instance came to know the change, in ns since made
	reached  atomic.Pointer[reach]
	changing chan struct{} // holds one who changes

	proving chan struct{} // holds one who asks the Witness, and guards fence
	fence   fence
	marked  atomic.Pointer[fence] // as it began

	enabled, epoch prometheus.Gauge
	refused        *prometheus.CounterVec
	failures       *prometheus.CounterVec
}

// New returns a Switch over store. A nil store switches this process only. Nothing is read before Run.
func New(store Store, options *Options) (*Switch, error) {
	s := &Switch{store: store, options: options.withDefaults(), made: time.Now(), unknown: new(State), changed: make(chan struct{}), changing: make(chan struct{}, 1), proving: make(chan struct{}, 1)}
	if !s.options.AssumeWritable {
		s.closed.Store(s.unknown)
	}
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

// AllowWrite returns nil when the caller may write, or a *RefusedError. It costs one atomic load while nothing is
// refused. Handlers of GraphQL, of GETs that write and of messages on long-lived connections ask it, or Begin.
func (s *Switch) AllowWrite(ctx context.Context) error {
	if s.open() {
		return nil
	}
	closed := s.barrier()
	if closed == nil {
		return nil
	}
	err := s.decide(ctx, closed)
	if err != nil {
		s.refused.WithLabelValues("check").Inc()
	}
	return err
}

// Begin is AllowWrite for a write that the fence is to wait for, until done is called. Middleware has done so for requests
// whose method writes.
func (s *Switch) Begin(ctx context.Context) (done func(), err error) {
	n, err := s.enter(ctx)
	if err != nil {
		s.refused.WithLabelValues("check").Inc()
		return nil, err
	}
	return sync.OnceFunc(func() { n.Add(-1) }), nil
}

// enter counts a write and lets it in, or refuses it. Counting before looking leaves no gap in which a write is neither
// counted nor refused.
func (s *Switch) enter(ctx context.Context) (*atomic.Int64, error) {
	for {
		n := s.writes.enter()
		if s.open() {
			return n, nil
		}
		closed := s.barrier()
		if closed == nil {
			return n, nil
		}
		n.Add(-1)
		if err := s.decide(ctx, closed); err != nil {
			return nil, err
		}
		if s.barrier() != closed {
			continue // it has just ended
		}
		counter := &s.allowed
		if closed != s.unknown && !closed.refuses(time.Now()) {
			counter = &s.writes // nothing refuses it: the poll has not seen that yet
		}
		n = counter.enter()
		if s.barrier() == closed {
			return n, nil
		}
		n.Add(-1)
	}
}

// open is the fast way, short enough to be inlined: nothing refuses writes, and no clock has to be looked at.
func (s *Switch) open() bool { return s.closed.Load() == nil && s.options.Isolated == 0 }

// barrier is what refuses writes to some at least, or nil.
func (s *Switch) barrier() *State {
	closed := s.closed.Load()
	if s.options.Isolated > 0 && (closed == nil || !closed.total() || !closed.refuses(time.Now())) &&
		time.Duration(s.heard.Load())+s.options.Isolated < time.Since(s.made) {
		return s.unknown
	}
	return closed
}

// decide is the slow way: something refuses writes, perhaps not this one.
func (s *Switch) decide(ctx context.Context, closed *State) error {
	switch {
	case ctx != nil && ctx.Value(ownKey{}) != nil:
		return nil
	case closed == s.unknown:
		return &RefusedError{}
	case !closed.refuses(time.Now()):
		return nil // the next poll opens the fast way, and tells whoever waits for a change
	case closed.Tier == Staff && s.options.Staff != nil && s.options.Staff(ctx):
		return nil
	case len(closed.Tenants) > 0 && s.options.Tenant != nil:
		if tenant, ok := s.options.Tenant(ctx); ok && !slices.Contains(closed.Tenants, tenant) {
			return nil
		}
	}
	return &RefusedError{State: *closed}
}

type ownKey struct{}

// OwnWrite marks the writes of a Store, which keep the state itself and so are refused by none. It is for Stores whose
// database asks the very switch that they serve.
func OwnWrite(ctx context.Context) context.Context { return context.WithValue(ctx, ownKey{}, true) }

// State returns what this instance obeys, and whether it has reached the store at all.
func (s *Switch) State() (state State, known bool) {
	if p := s.known.Load(); p != nil {
		return *p, true
	}
	return State{}, false
}

// Changed returns a channel that is closed when this instance comes to obey another state, or sees that its own has
// ended. Long-lived connections wait for it, so that a WebSocket or a stream of events can tell its client.
func (s *Switch) Changed() <-chan struct{} {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	return s.changed
}

// adopt obeys what the store says unless a later epoch is known. Of two changes with one epoch, the store's counts.
func (s *Switch) adopt(state State) {
	if was, now := s.obey(state); was != nil && was.ID != now.ID {
		s.remark(*was, now)
	}
}

func (s *Switch) obey(state State) (was *State, now State) {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	was = s.known.Load()
	if was != nil && (was.Epoch > state.Epoch || was.Equal(state)) {
		state = *was
	}
	var closed *State
	if state.refuses(time.Now()) {
		closed = &state
	}
	if s.left.Load() {
		closed = s.unknown
	}
	if was == nil || !was.Equal(state) || (s.closed.Load() == nil) != (closed == nil) {
		s.adopted.Store(int64(time.Since(s.made)))
		s.closed.Store(closed)
		s.known.Store(&state) // after closed: whoever reads it acknowledges
		close(s.changed)
		s.changed = make(chan struct{})
	}
	s.epoch.Set(float64(state.Epoch))
	s.enabled.Set(0)
	if closed != nil {
		s.enabled.Set(1)
	}
	return was, state
}
