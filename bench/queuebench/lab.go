package queuebench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

// patience bounds what should take seconds.
const patience = 2 * time.Minute

// task is the job of all measurements.
type task struct {
	N int `json:"n"`
}

func (task) Kind() string { return "bench" }

// lab has one Redis and one PostgreSQL for all measurements.
type lab struct {
	quick  bool
	server *rediscluster.Cluster
	rdb    redis.UniversalClient
	pg     *pgcluster.Cluster
	pool   *pgxpool.Pool
	queues int
}

func (l *lab) redis(ctx context.Context) error {
	if l.server != nil {
		return nil
	}
	logging.Disable()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		return err
	}
	l.server, l.rdb = c, redisclient.New(redisclient.Options(c.Addrs()...))
	return nil
}

func (l *lab) postgres(ctx context.Context) error {
	if l.pool != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := pgcluster.Start(ctx, nil)
	if err != nil {
		return err
	}
	l.pg = c
	config, err := pgxpool.ParseConfig(c.Primary().URL("postgres"))
	if err != nil {
		return err
	}
	config.MaxConns = 30
	if l.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(l.pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func (l *lab) close() error {
	var errs []error
	if l.pool != nil {
		l.pool.Close()
	}
	if l.pg != nil {
		errs = append(errs, l.pg.Close())
	}
	if l.server != nil {
		errs = append(errs, l.rdb.Close(), l.server.Close())
	}
	return errors.Join(errs...)
}

func (l *lab) facts() []string {
	var facts []string
	if l.server != nil {
		facts = append(facts, "Redis: one server, over loopback, nothing written to disk.")
	}
	if l.pg != nil {
		facts = append(facts, "PostgreSQL: one server, over a socket of this machine, fsync off.")
	}
	return facts
}

// jobs declares a queue that no other measurement uses.
func (l *lab) jobs() (*queue.Jobs, string, error) {
	l.queues++
	name := fmt.Sprintf("bench%d", l.queues)
	j, err := queue.New(l.rdb, []queue.Queue{{Name: name}}, nil)
	return j, name, err
}

// emptyRiver removes all of River's jobs, and what they leave behind.
func (l *lab) emptyRiver(ctx context.Context) error {
	_, err := l.pool.Exec(ctx, "TRUNCATE river_job")
	return err
}

// Args is task for River.
type riverArgs struct {
	N int `json:"n"`
}

func (riverArgs) Kind() string { return "bench" }

func (l *lab) fillRiver(ctx context.Context, n int) error {
	client, err := river.NewClient(riverpgxv5.New(l.pool), &river.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	for n > 0 {
		batch := make([]river.InsertManyParams, min(n, 5000))
		for i := range batch {
			batch[i] = river.InsertManyParams{Args: riverArgs{i}}
		}
		if _, err := client.InsertManyFast(ctx, batch); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		n -= len(batch)
	}
	return nil
}
