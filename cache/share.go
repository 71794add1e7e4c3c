package cache

import (
	"context"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"
)

const (
	// shareKeys and shareBytes bound what a script does at once: meanwhile its master serves nobody.
	shareKeys  = 64
	shareBytes = 64 << 10
)

// share is what a master does at once.
type share struct {
	master *redis.Client // of a cluster
	calls  []*keyCall    // with the same shared arguments
	alone  bool          // a call that is made with the script for one key
	bytes  int
	cmd    *redis.Cmd
}

// shares divides the calls that have no error yet by their masters, and into what these may do at once.
func (s *Store) shares(ctx context.Context, script keyScript, calls []keyCall) (shares []share) {
	cluster, clustered := s.rdb.(*redis.ClusterClient)
	// What tells nothing of changes may be a proxy, which has several servers and asks that of the first key. It stays one where
	// processes tell each other.
	single := !s.untracked.Load() && s.coverage.guard(0) != nil
	together := script.many != nil && len(calls) > 1 && (clustered || single)
	open := make([]share, 0, 4) // one a master
	for i := range calls {
		c := &calls[i]
		if c.err != nil {
			continue
		}
		var master *redis.Client
		var err error
		if together && clustered {
			master, err = cluster.MasterForKey(ctx, c.key)
		}
		if !together || err != nil {
			shares = append(shares, share{calls: []*keyCall{c}, alone: true})
			continue
		}
		at := slices.IndexFunc(open, func(sh share) bool { return sh.master == master })
		size := c.bytes()
		switch {
		case at < 0:
			at = len(open)
			open = append(open, share{master: master})
		case !same(open[at].calls[0].shared, c.shared) || len(open[at].calls) == shareKeys || open[at].bytes+size > shareBytes:
			shares = append(shares, open[at])
			open[at] = share{master: master}
		}
		open[at].calls, open[at].bytes = append(open[at].calls, c), open[at].bytes+size
	}
	return append(shares, open...)
}

// same reports whether two slices are one.
func same(a, b []any) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// bytes is about what a call sends.
func (c *keyCall) bytes() int {
	n := len(c.key)
	for _, arg := range c.args {
		if b, ok := arg.([]byte); ok {
			n += len(b)
		}
	}
	return n
}

// ask appends the command to a pipeline, with the hash of the script, or its text. To the master of a cluster the keys of many
// calls are not named, so the client is told of one.
func (sh *share) ask(ctx context.Context, pipe redis.Pipeliner, by keyScript, text bool) {
	script, first, position := by.many, sh.calls[0], 3
	if sh.alone {
		script = by.one
	}
	var keys []string
	named := sh.master == nil
	args := append(make([]any, 0, 3+len(first.shared)+len(sh.calls)*(1+len(first.args))), "evalsha", script.Hash(), 0)
	if named {
		args[2] = len(sh.calls)
		for _, c := range sh.calls {
			keys, args = append(keys, c.key), append(args, c.key)
		}
	} else {
		position += len(first.shared)
	}
	args = append(args, first.shared...)
	for _, c := range sh.calls {
		if !named {
			args = append(args, c.key)
		}
		args = append(args, c.args...)
	}
	if text {
		sh.cmd = script.Eval(ctx, pipe, keys, args[3+len(keys):]...)
	} else {
		sh.cmd = redis.NewCmd(ctx, args...)
		_ = pipe.Process(ctx, sh.cmd)
	}
	sh.cmd.SetFirstKeyPos(int8(position))
}

var errShare = errors.New("cache: a script for many keys has answered in no known form")

// take hands the answers to the calls, and returns those of many that were refused: because the master has not the key, or
// something fails of which one call alone is told.
func (sh *share) take() (refused []*keyCall) {
	reply, err := sh.cmd.Result()
	if sh.alone {
		sh.calls[0].reply, sh.calls[0].err = reply, err
		return nil
	}
	if err != nil && answered(err) {
		return sh.calls
	}
	answers, ok := reply.([]any)
	if err == nil && (!ok || len(answers) != len(sh.calls)) {
		err = errShare
	}
	for i, c := range sh.calls {
		switch {
		case err != nil:
			c.err = err
		case answers[i] == nil:
			refused = append(refused, c)
		default:
			c.reply = answers[i]
		}
	}
	return refused
}
