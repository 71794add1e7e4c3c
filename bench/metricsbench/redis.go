package metricsbench

import (
	"context"
	"errors"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/metrics/redismetrics"
)

const redisNote = "Added to a GET whose answer is there at once, round by round: the hook below the measured one answers. redisotel: metrics to a manual reader."

// answer is a hook that answers in Redis's place.
type answer struct{}

func (answer) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nobody is dialed here")
	}
}

func (answer) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(context.Context, redis.Cmder) error { return nil }
}

func (answer) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(context.Context, []redis.Cmder) error { return nil }
}

func (b bench) redis(ctx context.Context) ([]report.Row, error) {
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(ctx)) }()
	var contenders []pairs.Contender
	for _, c := range []struct {
		name  string
		hooks func(*redis.Client) error
	}{
		{"bare", func(*redis.Client) error { return nil }},
		{"redismetrics", func(rdb *redis.Client) error {
			return redismetrics.Attach(rdb, &redismetrics.Options{Registerer: prometheus.NewRegistry()})
		}},
		{"redisotel", func(rdb *redis.Client) error {
			return redisotel.InstrumentMetrics(rdb, redisotel.WithMeterProvider(provider))
		}},
	} {
		rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
		defer rdb.Close()
		if err := c.hooks(rdb); err != nil {
			return nil, err
		}
		rdb.AddHook(answer{})
		contenders = append(contenders, pairs.Contender{Name: c.name, Op: func(ctx context.Context) error { return rdb.Get(ctx, "key").Err() }})
	}
	r, err := b.run(ctx, contenders...)
	if err != nil {
		return nil, err
	}
	return []report.Row{compare("GET: redismetrics, peer redisotel", added(r[1], r[0]), added(r[2], r[0]), .25, 0)}, nil
}
