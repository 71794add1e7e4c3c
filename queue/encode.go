package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// stored is a job as it goes into Redis.
type stored struct {
	id, attempt string
	msg         []byte // as asynq encodes it
	lock        string // the key that makes it unique, or ""
	lockFor     time.Duration
	due         time.Time
}

// encoder has asynq encode jobs, which nothing public of it does, by enqueueing to a client that only looks on.
type encoder struct{ client *asynq.Client }

func newEncoder(rdb redis.UniversalClient) *encoder {
	return &encoder{asynq.NewClientFromRedisClient(onlooker{rdb})}
}

type onlookerKey struct{}

// onlooker is a Redis client that notes what would be stored and says that it was.
type onlooker struct{ redis.UniversalClient }

func (o onlooker) EvalSha(ctx context.Context, _ string, keys []string, args ...any) *redis.Cmd {
	if s, ok := ctx.Value(onlookerKey{}).(*stored); ok {
		s.see(keys, args)
	}
	cmd := redis.NewCmd(ctx)
	cmd.SetVal(int64(1))
	return cmd
}

func (o onlooker) Eval(ctx context.Context, _ string, keys []string, args ...any) *redis.Cmd {
	return o.EvalSha(ctx, "", keys, args...)
}

// SAdd is asynq's announcement of a queue, which store makes itself.
func (o onlooker) SAdd(ctx context.Context, _ string, _ ...any) *redis.IntCmd {
	return redis.NewIntCmd(ctx)
}

func (s *stored) see(keys []string, args []any) {
	for _, arg := range args {
		if msg, ok := arg.([]byte); ok {
			s.msg = msg
		}
	}
	if len(keys) > 0 && strings.Contains(keys[0], ":unique:") {
		s.lock = keys[0]
	}
}

func (n *encoder) encode(e *envelope) (stored, error) {
	s := stored{id: e.ID, attempt: e.Headers[headerAttempt], due: e.At}
	task := asynq.NewTaskWithHeaders(e.Kind, e.Payload, e.Headers)
	ctx := context.WithValue(context.Background(), onlookerKey{}, &s)
	if _, err := n.client.EnqueueContext(ctx, task, e.asynqOptions()...); err != nil {
		return s, fmt.Errorf("queue: encode job %q: %w", e.Kind, err)
	}
	if len(s.msg) == 0 || (e.Unique > 0) != (s.lock != "") {
		return s, fmt.Errorf("%w: its enqueue of job %q has no known form", ErrNotGated, e.Kind)
	}
	if s.lock != "" {
		s.lockFor = e.Unique + max(0, time.Until(e.At))
	}
	return s, nil
}

func (e *envelope) asynqOptions() []asynq.Option {
	options := []asynq.Option{asynq.Queue(e.Queue), asynq.TaskID(e.ID)}
	if e.MaxRetry != nil {
		options = append(options, asynq.MaxRetry(*e.MaxRetry))
	}
	if e.Timeout > 0 {
		options = append(options, asynq.Timeout(e.Timeout))
	}
	if e.Retention > 0 {
		options = append(options, asynq.Retention(e.Retention))
	}
	if e.Unique > 0 {
		options = append(options, asynq.Unique(e.Unique))
	}
	return options
}
