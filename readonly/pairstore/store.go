package pairstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// Options configure a Store.
type Options struct {
	// Every is how often the second store is read while the first answers. Zero means 2 s.
	Every time.Duration
	// Timeout bounds each call of either, so that one that hangs does not take the other's time. Zero means 500 ms.
	Timeout time.Duration
	// Logger gets what either store fails at. Zero means that it is discarded.
	Logger *slog.Logger
}

// Store implements readonly.Store.
type Store struct {
	first, second readonly.Store
	options       Options

	mu     sync.Mutex
	seen   uint64    // the highest epoch that either had
	looked time.Time // when the second was read, and had it
}

var _ readonly.Store = (*Store)(nil)

// New returns a Store on both.
func New(first, second readonly.Store, options *Options) (*Store, error) {
	s := &Store{first: first, second: second}
	if options != nil {
		s.options = *options
	}
	if s.options.Every == 0 {
		s.options.Every = 2 * time.Second
	}
	if s.options.Timeout == 0 {
		s.options.Timeout = 500 * time.Millisecond
	}
	if s.options.Logger == nil {
		s.options.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	if first == nil || second == nil {
		errs = append(errs, errors.New("pairstore: two stores are needed"))
	}
	if s.options.Every < 0 || s.options.Timeout < 0 {
		errs = append(errs, fmt.Errorf("pairstore: Options.Every is %v and Timeout is %v, want positive durations", s.options.Every, s.options.Timeout))
	}
	return s, errors.Join(errs...)
}

// later returns the one that counts of two that may have been stored apart.
func later(a, b readonly.State) readonly.State {
	switch {
	case a.Epoch != b.Epoch:
		if a.Epoch > b.Epoch {
			return a
		}
		return b
	case a.Equal(b):
		return a
	}
	winner := b
	if a.Enabled && !b.Enabled || a.Enabled == b.Enabled && a.ID > b.ID {
		winner = a
	}
	winner.Epoch++ // or neither store would take it from the other
	return winner
}

// Load implements readonly.Store.
func (s *Store) Load(ctx context.Context) (readonly.State, error) {
	a, err := call(ctx, s, s.first.Load)
	if err == nil && s.enough(a) {
		return a, nil
	}
	b, err2 := call(ctx, s, s.second.Load)
	switch {
	case err != nil && err2 != nil:
		return readonly.State{}, fmt.Errorf("pairstore: neither store answers: %w", errors.Join(err, err2))
	case err != nil:
		s.noted(b.Epoch, false)
		return b, nil
	case err2 != nil:
		s.options.Logger.Warn("the second store of the read-only state does not answer", "error", err2)
		s.noted(a.Epoch, true) // or each poll would wait for it
		return a, nil
	}
	won := later(a, b)
	whole := s.heal(ctx, "first", s.first, a, won) && s.heal(ctx, "second", s.second, b, won)
	s.noted(won.Epoch, whole)
	return won, nil
}

// heal writes back what a store has lost.
func (s *Store) heal(ctx context.Context, name string, store readonly.Store, has, won readonly.State) bool {
	if has.Equal(won) {
		return true
	}
	_, err := call(ctx, s, func(ctx context.Context) (readonly.State, error) { return store.Save(ctx, won) })
	s.options.Logger.Warn("a store of the read-only state was behind, it was written back", "store", name, "had", has.Epoch, "epoch", won.Epoch, "error", err)
	return err == nil
}

func (s *Store) enough(a readonly.State) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.Epoch > 0 && a.Epoch >= s.seen && time.Since(s.looked) < s.options.Every
}

func (s *Store) noted(epoch uint64, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = max(s.seen, epoch)
	if whole {
		s.looked = time.Now()
	}
}

// Save implements readonly.Store.
func (s *Store) Save(ctx context.Context, state readonly.State) (readonly.State, error) {
	save := func(store readonly.Store, state readonly.State) (readonly.State, error) {
		return call(ctx, s, func(ctx context.Context) (readonly.State, error) { return store.Save(ctx, state) })
	}
	a, err := save(s.first, state)
	if err != nil {
		b, err2 := save(s.second, state)
		if err2 != nil {
			return readonly.State{}, fmt.Errorf("pairstore: neither store answers: %w", errors.Join(err, err2))
		}
		s.options.Logger.Warn("the first store of the read-only state does not answer, the second has decided", "epoch", b.Epoch, "error", err)
		s.noted(b.Epoch, false)
		return b, nil
	}
	b, err := save(s.second, a)
	if err != nil {
		s.options.Logger.Warn("the second store of the read-only state does not answer, the first has decided", "epoch", a.Epoch, "error", err)
		s.noted(a.Epoch, false)
		return a, nil
	}
	won := later(a, b)
	whole := s.heal(ctx, "first", s.first, a, won) && s.heal(ctx, "second", s.second, b, won)
	s.noted(won.Epoch, whole)
	return won, nil
}

// Watch implements readonly.Store. While the first store does not answer, the caller's polls read the second.
func (s *Store) Watch(ctx context.Context, changed func()) error { return s.first.Watch(ctx, changed) }

// Acknowledge implements readonly.Store. The second store is spared the acknowledgements while the first takes them.
func (s *Store) Acknowledge(ctx context.Context, instance string, ack readonly.Ack, ttl time.Duration) error {
	acknowledge := func(store readonly.Store) error {
		_, err := call(ctx, s, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, store.Acknowledge(ctx, instance, ack, ttl)
		})
		return err
	}
	err := acknowledge(s.first)
	if err == nil && ttl > 0 {
		return nil
	}
	if err2 := acknowledge(s.second); err != nil && err2 != nil {
		return fmt.Errorf("pairstore: neither store answers: %w", errors.Join(err, err2))
	}
	return nil
}

// Acknowledged implements readonly.Store: the latest word of each instance, wherever it has left it.
func (s *Store) Acknowledged(ctx context.Context) (map[string]readonly.Ack, error) {
	a, err := call(ctx, s, s.first.Acknowledged)
	b, err2 := call(ctx, s, s.second.Acknowledged)
	if err != nil && err2 != nil {
		return nil, fmt.Errorf("pairstore: neither store answers: %w", errors.Join(err, err2))
	}
	if a == nil {
		return b, nil
	}
	for instance, ack := range b {
		if have, ok := a[instance]; !ok || ack.Age < have.Age {
			a[instance] = ack
		}
	}
	return a, nil
}

// call bounds a call by the timeout, and by half of what the caller has left, so that there is time for the other store.
func call[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (T, error) {
	timeout := s.options.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return f(ctx)
}
