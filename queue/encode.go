package queue

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" // #nosec G501 -- of asynq's locks
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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

// encoder makes of jobs what asynq stores. It writes that itself, and where asynq's version has another form than the one known here,
// it has asynq do so, by enqueueing to a client that only looks on: nothing public of asynq encodes.
type encoder struct {
	client *asynq.Client
	agrees func() bool
}

func newEncoder(rdb redis.UniversalClient) *encoder {
	n := &encoder{client: asynq.NewClientFromRedisClient(onlooker{rdb})}
	n.agrees = sync.OnceValue(n.compare)
	return n
}

// compare encodes jobs in both ways.
func (n *encoder) compare() bool {
	retries := 3
	for _, e := range []*envelope{
		{Kind: "a", settings: settings{ID: "1", Queue: "q"}},
		{Kind: "a", Payload: []byte("{}"), settings: settings{
			ID: "1", Queue: "q", MaxRetry: &retries, Timeout: time.Minute, Retention: time.Hour, Unique: time.Hour, Headers: map[string]string{headerAttempt: "x"},
		}},
		{Kind: "a", settings: settings{ID: "1", Queue: "q", MaxRetry: new(int), Unique: time.Hour, At: time.Now().Add(time.Hour)}},
	} {
		theirs, err := n.ask(e)
		if err != nil {
			return false
		}
		if ours, err := e.store(); err != nil || !bytes.Equal(ours.msg, theirs.msg) || ours.lock != theirs.lock {
			return false
		}
	}
	return true
}

func (n *encoder) encode(e *envelope) (stored, error) {
	if n.agrees() {
		return e.store()
	}
	return n.ask(e)
}

// What asynq gives a job that does not say otherwise.
const (
	defaultRetries = 25
	defaultTimeout = 30 * time.Minute
)

// store encodes a job as asynq does.
func (e *envelope) store() (stored, error) {
	s := stored{id: e.ID, attempt: e.attempt(), due: e.At}
	for name, value := range e.Headers {
		if !utf8.ValidString(value) {
			return s, fmt.Errorf("queue: encode job %q: header %q is not UTF-8", e.Kind, name)
		}
	}
	m := message{
		kind: e.Kind, payload: e.Payload, id: e.ID, queue: e.Queue, headers: e.Headers, retry: defaultRetries,
		timeout: int64(cmp.Or(e.Timeout, defaultTimeout) / time.Second), retention: int64(e.Retention / time.Second),
	}
	if e.MaxRetry != nil {
		m.retry = *e.MaxRetry
	}
	if e.Unique > 0 {
		m.lock = asynqKey(e.Queue, "unique:") + e.Kind + ":"
		if e.Payload != nil {
			sum := md5.Sum(e.Payload) // #nosec G401 -- asynq's name for the lock
			m.lock += hex.EncodeToString(sum[:])
		}
		s.lockFor = e.Unique + max(0, time.Until(e.At))
	}
	s.lock, s.msg = m.lock, m.encode()
	return s, nil
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

// ask has asynq encode a job.
func (n *encoder) ask(e *envelope) (stored, error) {
	s := stored{id: e.ID, attempt: e.attempt(), due: e.At}
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
