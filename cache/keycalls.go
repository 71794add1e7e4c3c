package cache

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// keyCall is a script's call on one key, and what came of it.
type keyCall struct {
	key    string
	shared []any // with calls that have the same slice
	args   []any // the key's own
	pass   int   // of the master, among those that the call asks
	reply  any
	err    error
}

// callMany runs a script on many keys, in one pipeline a master and within timeout.
func (s *Store) callMany(ctx context.Context, script keyScript, calls []keyCall, timeout time.Duration) {
	if len(calls) == 0 {
		return
	}
	if timeout <= 0 { // which says nothing of any master
		for i := range calls {
			calls[i].err = context.DeadlineExceeded
		}
		return
	}
	asked := make(passes, 0, 4)
	for i := range calls {
		c := &calls[i]
		c.pass = asked.enter(s.coverage.guard(s.coverage.slot(c.key)))
		c.err = asked[c.pass].refused
	}
	rctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.evaluate(rctx, script, calls)
	for i := range calls {
		if c := &calls[i]; asked[c.pass].refused == nil {
			asked.note(c.pass, c.err)
		}
	}
	s.leave(ctx, asked)
}

// failedAll returns the error of one call when none was done.
func failedAll(calls []keyCall) error {
	for i := range calls {
		if calls[i].err == nil {
			return nil
		}
	}
	return calls[0].err
}

// evaluate makes the calls that have no error yet: many of a master at once, and those one by one that are refused so.
func (s *Store) evaluate(ctx context.Context, script keyScript, calls []keyCall) {
	refused := s.send(ctx, script, s.shares(ctx, script, calls))
	again := make([]share, len(refused))
	for i, c := range refused {
		again[i] = share{calls: []*keyCall{c}, alone: true}
	}
	s.send(ctx, script, again)
}

// send makes the calls of shares, in one pipeline a master, and those once more whose master did not know the script. It returns
// those that were refused.
func (s *Store) send(ctx context.Context, script keyScript, shares []share) (refused []*keyCall) {
	if len(shares) == 0 {
		return nil
	}
	pipe := s.rdb.Pipeline()
	for i := range shares {
		shares[i].ask(ctx, pipe, script, false)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i := range shares {
		if redis.HasErrorPrefix(shares[i].cmd.Err(), "NOSCRIPT") {
			shares[i].ask(ctx, pipe, script, true)
		}
	}
	_, _ = pipe.Exec(ctx)
	for i := range shares {
		refused = append(refused, shares[i].take()...)
	}
	return refused
}
