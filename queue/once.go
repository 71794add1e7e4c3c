package queue

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// once is a client that sends no script again whose answer was lost, as that of a cluster does whatever its MaxRetries are: Redis may
// have done it, and does it twice then, or answers that there is nothing left to do. What it has certainly not done is sent again.
type once struct{ redis.UniversalClient }

// EvalSha and Eval are what redis.Script runs.
func (o once) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	return o.send(ctx, "evalsha", sha, keys, args)
}

// Eval is EvalSha by the script's text.
func (o once) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return o.send(ctx, "eval", script, keys, args)
}

func (o once) send(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	const most = 4 // as a cluster's client
	pause := 10 * time.Millisecond
	for try := 1; ; try++ {
		cmd := newOnceCmd(ctx, name, script, keys, args)
		if err := o.Process(ctx, cmd); try == most || !undone(err) || !sleep(ctx, pause) {
			return cmd.Cmd
		}
		pause *= 2
	}
}

// onceCmd is a command that go-redis does not send again when its answer is lost, nor a pipeline that has it. It follows a moved slot.
type onceCmd struct{ *redis.Cmd }

// NoRetry is how go-redis is told.
func (onceCmd) NoRetry() bool { return true }

func newOnceCmd(ctx context.Context, name, script string, keys []string, args []any) onceCmd {
	all := append(make([]any, 0, 3+len(keys)+len(args)), name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3)
	return onceCmd{cmd}
}

// undone reports whether err means that Redis has certainly not done the command, and may do it a little later.
func undone(err error) bool {
	if err == nil {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	return passing(err) || errors.Is(err, redis.ErrPoolTimeout) || redis.IsMaxClientsError(err)
}
