package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Gate says whether writes are allowed now. It is asked before each enqueue and each fetch, so it must answer from
// memory. readonly.Switch is one.
type Gate interface {
	AllowWrite(ctx context.Context) error
}

// Outbox is the database of the transactional outbox. dbsplit.DB and pgxpool.Pool are one. One that is also a
// scaleaware.Source is asked for positions.
type Outbox interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Options configures New. Every field is optional.
type Options struct {
	// Gate refuses new jobs and parks stored ones while writes are off. Zero means that writes are always allowed.
	Gate Gate
	// Outbox is where EnqueueTx's rows are, for Run to relay. Zero means that this process relays none.
	Outbox Outbox
	// OutboxInterval is the pause between looks into an empty outbox. Zero means 200ms.
	OutboxInterval time.Duration
	// OutboxRetention is how long a job that came through the outbox keeps its ID after it is done. A relay that dies
	// between enqueue and delete hands the job over again; within this time that adds nothing, nor does a job that was refused
	// because of another one's Unique lock. Zero means 15m.
	OutboxRetention time.Duration
	// SampleInterval is the pause between looks at depths, for metrics and scale rules. Zero means 2s.
	SampleInterval time.Duration
	// Codec encodes jobs for Redis and the outbox; every process of the fleet must have the same. Zero means JSON.
	Codec Codec
	// Logger receives what happens in the background. Zero means none.
	Logger *slog.Logger
	// Registerer exports the metrics. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

func (o *Options) withDefaults() (Options, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	var errs []error
	duration := func(name string, d *time.Duration, zero, least time.Duration) {
		if *d == 0 {
			*d = zero
		}
		if *d < least {
			errs = append(errs, fmt.Errorf("queue: Options.%s is %v, want at least %v", name, *d, least))
		}
	}
	duration("OutboxInterval", &opts.OutboxInterval, 200*time.Millisecond, time.Millisecond)
	duration("OutboxRetention", &opts.OutboxRetention, 15*time.Minute, time.Second)
	duration("SampleInterval", &opts.SampleInterval, 2*time.Second, 10*time.Millisecond)
	if opts.Codec == nil {
		opts.Codec = jsonCodec{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return opts, errors.Join(errs...)
}

// Jobs enqueues jobs and operates their queues. All methods are safe for concurrent use.
type Jobs struct {
	rdb     redis.UniversalClient
	encoder *encoder
	asynq   *asynq.Inspector
	queues  []Queue
	opts    Options
	log     *slog.Logger
	remarks remarks
	meters  *meters
	source  scaleaware.Source
	scalers []*scaler
	crons   []*periodic
	// replicas are those of a Redis that is no cluster.
	replicas replicas
	// announced says when asynq's tools were last told of a queue.
	announced sync.Map
	// cutLooks are the looks at failed jobs, by queue, that Redis has not answered: repeated, they get the same answer.
	cutLooks sync.Map
}

// New declares queues on rdb, which may be a single node, a Sentinel or a cluster client and stays the caller's. It
// reports all mistakes at once and does not talk to Redis.
func New(rdb redis.UniversalClient, queues []Queue, o *Options) (*Jobs, error) {
	opts, err := o.withDefaults()
	errs := []error{err, validateQueues(queues)}
	if rdb == nil {
		errs = append(errs, errors.New("queue: the Redis client is nil"))
	}
	m, err := newMeters(opts.Registerer)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	j := &Jobs{rdb: rdb, opts: opts, log: opts.Logger, remarks: remarks{log: opts.Logger}, meters: m}
	j.encoder, j.asynq = newEncoder(rdb), asynq.NewInspectorFromRedisClient(rdb)
	for _, q := range queues {
		if q.Weight == 0 {
			q.Weight = 1
		}
		j.queues = append(j.queues, q)
	}
	if src, ok := opts.Outbox.(scaleaware.Source); ok {
		j.source = src
	}
	for _, warning := range redisclient.Check(rdb) {
		j.log.Warn("queue: the Redis client will hurt when Redis fails: " + warning)
	}
	return j, nil
}

// declared finds a queue that New was given.
func (j *Jobs) declared(name string) (Queue, bool) {
	for _, q := range j.queues {
		if q.Name == name {
			return q, true
		}
	}
	return Queue{}, false
}

// known reports whether a queue is declared or exists in Redis, because another service declares it.
func (j *Jobs) known(ctx context.Context, name string) error {
	if _, ok := j.declared(name); ok {
		return nil
	}
	if !validName(name) {
		return fmt.Errorf("%w: %q", ErrUnknownQueue, clip(name))
	}
	found, err := j.rdb.SIsMember(ctx, allQueues, name).Result()
	switch {
	case err != nil:
		return fmt.Errorf("queue: look for queue %q: %w", name, err)
	case !found:
		return fmt.Errorf("%w: %q", ErrUnknownQueue, name)
	default:
		return nil
	}
}

// allow asks the gate whether jobs of q may be stored or started now.
func (j *Jobs) allow(ctx context.Context, q Queue) error {
	if j.opts.Gate == nil || q.ReadsOnly {
		return nil
	}
	return j.opts.Gate.AllowWrite(ctx)
}

// background counts and logs a failure that has no caller.
func (j *Jobs) background(task string, err error, args ...any) {
	j.meters.background.WithLabelValues("queue", task).Inc()
	j.remarks.failed(task, err, args...)
}
