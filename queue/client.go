package queue

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// tellingClient passes on the errors of an enqueue's commands: asynq keeps only their text, which cannot tell a
// refusal from a lost answer.
type tellingClient struct{ redis.UniversalClient }

type errorKey struct{}

// withErrorBox returns a context in which a tellingClient leaves the last command's error.
func withErrorBox(ctx context.Context) (context.Context, *error) {
	box := new(error)
	return context.WithValue(ctx, errorKey{}, box), box
}

func (c tellingClient) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	cmd := c.UniversalClient.Eval(ctx, script, keys, args...)
	tell(ctx, cmd.Err())
	return cmd
}

func (c tellingClient) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	tell(ctx, cmd.Err())
	return cmd
}

// SAdd makes a new queue known, before its first job.
func (c tellingClient) SAdd(ctx context.Context, key string, members ...any) *redis.IntCmd {
	cmd := c.UniversalClient.SAdd(ctx, key, members...)
	tell(ctx, cmd.Err())
	return cmd
}

func tell(ctx context.Context, err error) {
	if box, ok := ctx.Value(errorKey{}).(*error); ok {
		*box = err
	}
}

// answered reports whether err is Redis's own answer, so that the command did nothing, rather than a lost one.
func answered(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

// passing reports whether Redis's answer means that the same command may succeed a little later.
func passing(err error) bool {
	for _, prefix := range []string{"LOADING", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "TRYAGAIN", "BUSY"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// notFound is what asynq's scripts answer when a job is not running any more.
func notFound(err error) bool { return err != nil && strings.Contains(err.Error(), "NOT FOUND") }

func isNil(err error) bool { return errors.Is(err, redis.Nil) }

// containsAttempt looks for a random header value in a stored message. It is 36 characters of randomness, so its
// presence anywhere is proof enough.
func containsAttempt(msg, attempt string) bool {
	return attempt != "" && strings.Contains(msg, attempt)
}
