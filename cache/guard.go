package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/redis/go-redis/v9"
)

const (
	// breakAfter is how many calls to a master fail in a row before it is not called any more.
	breakAfter = 5
	// probeEvery is how long it is then left alone between two trials.
	probeEvery = 250 * time.Millisecond
)

// errBroken says that a master has failed lately and is not called.
var errBroken = errors.New("cache: the master has failed lately and is not asked now")

// guard keeps calls from waiting for a master that does not answer.
type guard struct {
	breaker circuitbreaker.CircuitBreaker[any]
	lane    lane
	off     atomic.Bool // the server is no master any more
	forget  func()      // drops its series
}

func newGuard(addr string, in *instruments) *guard {
	g := &guard{forget: func() { in.broken.DeleteLabelValues(addr) }}
	g.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(breakAfter).
		WithSuccessThreshold(1).
		WithDelay(probeEvery).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			in.breaker(addr, e.NewState)
			if g.off.Load() { // a call that was under way
				g.forget()
			}
		}).
		Build()
	return g
}

func (g *guard) dismiss() {
	if g != nil {
		g.off.Store(true)
		g.forget()
	}
}

// enter asks whether a master may be called. A nil guard lets everything through.
func (g *guard) enter() error {
	if g == nil || g.breaker.TryAcquirePermit() {
		return nil
	}
	return errBroken
}

// leave notes how the call went. What a caller's own end has cut short says nothing of the master, and a batch counts for
// who sent it.
func (g *guard) leave(ctx context.Context, err error) {
	switch {
	case g == nil:
	case err == nil, errors.Is(err, redis.Nil), errors.As(err, new(redis.Error)):
		g.breaker.RecordSuccess()
	case (ctx.Err() != nil || errors.Is(err, errLost)) && g.breaker.IsClosed():
	default:
		g.breaker.RecordFailure()
	}
}

// call runs one call to the master that has a key.
func (s *Store) call(ctx context.Context, key string, do func(ctx context.Context) error) error {
	g := s.coverage.guard(s.coverage.slot(key))
	if err := g.enter(); err != nil {
		return err
	}
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	err := do(rctx)
	cancel()
	s.called(ctx, g, err)
	return err
}

// called notes how a call went.
func (s *Store) called(ctx context.Context, g *guard, err error) {
	g.leave(ctx, err)
	if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
		s.kicked.ring()
	}
}

// passes are the masters that a call over many keys asks.
type passes []pass

type pass struct {
	guard   *guard
	refused error // the master is not to be asked
	silent  error // it has not answered
}

// enter returns the place of a guard, which was asked once.
func (p *passes) enter(g *guard) int {
	for i := range *p {
		if (*p)[i].guard == g {
			return i
		}
	}
	*p = append(*p, pass{guard: g, refused: g.enter()})
	return len(*p) - 1
}

// note takes in how a command ended.
func (p passes) note(i int, err error) {
	if err != nil && p[i].silent == nil && !answered(err) {
		p[i].silent = err
	}
}

// leave notes how a call over many keys went.
func (s *Store) leave(ctx context.Context, p passes) {
	for i := range p {
		if p[i].refused == nil {
			s.called(ctx, p[i].guard, p[i].silent)
		}
	}
}

// ask sends one command to the master that has a key, with others' when there are many.
func (s *Store) ask(ctx context.Context, key string, cmd redis.Cmder) error {
	g := s.coverage.guard(s.coverage.slot(key))
	if err := g.enter(); err != nil {
		return err
	}
	err := s.process(ctx, g, key, cmd)
	s.called(ctx, g, err)
	return err
}

// get reads one key.
func (s *Store) get(ctx context.Context, key string) ([]byte, error) {
	cmd := redis.NewStringCmd(ctx, "get", key)
	if err := s.ask(ctx, key, cmd); err != nil {
		return nil, err
	}
	return cmd.Bytes()
}

// script runs a script on one key.
func (s *Store) script(ctx context.Context, script *redis.Script, key string, args ...any) (reply any, err error) {
	all := append([]any{"evalsha", script.Hash(), 1, key}, args...)
	cmd := redis.NewCmd(ctx, all...)
	cmd.SetFirstKeyPos(3)
	err = s.ask(ctx, key, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		err = s.call(ctx, key, func(ctx context.Context) error {
			cmd = script.Eval(ctx, s.rdb, []string{key}, args...)
			return cmd.Err()
		})
	}
	if err != nil {
		return nil, err // the command must not be looked at: others may still be at it
	}
	return cmd.Val(), nil
}
