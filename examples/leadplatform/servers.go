package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// database is the name that the runbook uses.
const database = "insurance_lead_gen"

// Servers are those that this process started; none when the environment names others.
type Servers struct {
	postgres *pgcluster.Cluster
	redis    *rediscluster.Cluster
}

// OpenServers starts PostgreSQL and Redis and puts their addresses into c, unless c has some already.
func OpenServers(ctx context.Context, c *lead.Config) (*Servers, error) {
	s := new(Servers)
	if c.HasServers() {
		return s, nil
	}
	fmt.Println("starting a PostgreSQL primary with two replicas and six Redis nodes …")
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		// Room for every pool of every process, also while the autoscaler has added workers.
		s.postgres, err = pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2, Settings: map[string]string{"max_connections": "300"}})
		if err == nil {
			err = s.postgres.CreateDatabase(ctx, database)
		}
		return err
	})
	group.Go(func() (err error) {
		// A limit, so that memory can be watched; noeviction, because queues and sessions live here, too.
		s.redis, err = rediscluster.Start(ctx, &rediscluster.Options{Nodes: 6, Config: map[string]string{"maxmemory": "268435456", "maxmemory-policy": "noeviction"}})
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	c.PrimaryURL = s.postgres.Primary().URL(database)
	for n := range 2 {
		c.ReplicaURLs = append(c.ReplicaURLs, s.postgres.Replica(n).URL(database))
	}
	c.RedisAddrs = s.redis.Addrs()
	return s, nil
}

// Close stops what OpenServers started and removes its files.
func (s *Servers) Close() error {
	var errs []error
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Close())
	}
	return errors.Join(errs...)
}
