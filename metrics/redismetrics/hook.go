package redismetrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
)

// Options are Attach's and NewHook's options.
type Options struct {
	// Name is the label client of all series: two clients of one process need two names. Zero means "redis".
	Name string
	// Trace returns the id of the trace that a call is part of, or "", as metrics.HTTPOptions.Trace. Zero means none.
	Trace func(context.Context) string
	// Registerer exports the series. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

func (o *Options) withDefaults() Options {
	c := Options{}
	if o != nil {
		c = *o
	}
	if c.Name == "" {
		c.Name = "redis"
	}
	return c
}

// Attach measures a client, which must be a *redis.Client, a *redis.ClusterClient or a *redis.Ring, from now on.
func Attach(client redis.UniversalClient, opts *Options) error {
	o := opts.withDefaults()
	h, err := NewHook(&o)
	if err != nil {
		return err
	}
	p := newPools(o.Name)
	var onNode func(func(*redis.Client))
	switch c := client.(type) {
	case *redis.Client:
		p.only = c
		p.add(c)
	case *redis.ClusterClient:
		onNode = c.OnNewNode
	case *redis.Ring:
		onNode = c.OnNewNode
	default:
		return fmt.Errorf("redismetrics: Attach takes a *redis.Client, a *redis.ClusterClient or a *redis.Ring, not a %T", client)
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(p); err != nil {
			return fmt.Errorf("redismetrics: register the pool of client %q, give each client an Options.Name of its own: %w", o.Name, err)
		}
	}
	client.AddHook(h)
	if onNode != nil {
		onNode(func(node *redis.Client) {
			node.AddHook(dials{h}) // calls are measured above it, once
			p.add(node)
		})
	}
	return nil
}

// Hook measures calls and dials. It implements redis.Hook.
type Hook struct {
	calls     [classes][outcomes]prometheus.Observer
	dialed    [outcomes]prometheus.Observer
	pipelined prometheus.Counter
	trace     func(context.Context) string
}

var _ redis.Hook = (*Hook)(nil)

// NewHook makes a hook without a pool collector, for those who add hooks themselves. Attach does both.
func NewHook(opts *Options) (*Hook, error) {
	o := opts.withDefaults()
	calls, err1 := metrics.NewHistogram(o.Registerer, metrics.RedisCommandDuration)
	dialed, err2 := metrics.NewHistogram(o.Registerer, metrics.RedisDialDuration)
	pipelined, err3 := metrics.NewCounter(o.Registerer, metrics.RedisPipelined)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	h := &Hook{pipelined: pipelined.WithLabelValues(o.Name), trace: o.Trace}
	for out, outcome := range outcomeNames {
		h.dialed[out] = dialed.WithLabelValues(o.Name, outcome)
		for c, class := range classNames {
			h.calls[c][out] = calls.WithLabelValues(o.Name, class, outcome)
		}
	}
	return h, nil
}

// DialHook implements redis.Hook.
func (h *Hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		begun := time.Now()
		conn, err := next(ctx, network, addr)
		h.dialed[outcomeOf(err)].Observe(time.Since(begun).Seconds())
		return conn, err
	}
}

// ProcessHook implements redis.Hook.
func (h *Hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		begun := time.Now()
		err := next(ctx, cmd)
		h.observe(ctx, known[cmd.Name()], err, begun)
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (h *Hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		class := pipeline
		if len(cmds) > 0 {
			switch cmds[0].Name() {
			case "multi":
				class = transaction
			case "hello", "auth", "select", "readonly", "client": // go-redis's own, on a new connection; old servers refuse some
				class = other
			}
		}
		begun := time.Now()
		err := next(ctx, cmds)
		if class != other {
			h.pipelined.Add(float64(len(cmds)))
		}
		h.observe(ctx, class, err, begun)
		return err
	}
}

func (h *Hook) observe(ctx context.Context, c class, err error, begun time.Time) {
	took := time.Since(begun).Seconds()
	o := h.calls[c][outcomeOf(err)]
	if h.trace == nil {
		o.Observe(took)
		return
	}
	metrics.ObserveTraced(o, took, h.trace(ctx))
}

// dials is the part of a hook that the nodes of a cluster need.
type dials struct{ *Hook }

func (dials) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (dials) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
