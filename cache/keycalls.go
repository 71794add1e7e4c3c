package cache

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// keyCall is a script's call on one key, and what came of it.
type keyCall struct {
	key   string
	args  []any
	pass  int // of the master, among those that the call asks
	reply any
	err   error
}

// callMany runs a script on many keys, in one pipeline a master and within timeout.
func (s *Store) callMany(ctx context.Context, script *redis.Script, calls []keyCall, timeout time.Duration) {
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

// evaluate makes the calls that have no error yet, and those once more whose master did not know the script.
func (s *Store) evaluate(ctx context.Context, script *redis.Script, calls []keyCall) {
	pipe, commands := s.rdb.Pipeline(), make([]*redis.Cmd, len(calls))
	for i := range calls {
		if c := &calls[i]; c.err == nil {
			commands[i] = pipe.EvalSha(ctx, script.Hash(), []string{c.key}, c.args...)
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i := range calls {
		if c := &calls[i]; commands[i] != nil && redis.HasErrorPrefix(commands[i].Err(), "NOSCRIPT") {
			commands[i] = script.Eval(ctx, pipe, []string{c.key}, c.args...)
		}
	}
	_, _ = pipe.Exec(ctx)
	for i, cmd := range commands {
		if cmd != nil {
			calls[i].reply, calls[i].err = cmd.Result()
		}
	}
}
