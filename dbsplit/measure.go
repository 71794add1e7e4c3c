package dbsplit

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	poolSampleInterval = time.Second
	sizeSampleInterval = time.Minute
)

// measure keeps the gauges until ctx ends.
func (db *DB) measure(ctx context.Context) {
	pools := time.NewTicker(poolSampleInterval)
	defer pools.Stop()
	sizes := time.NewTicker(sizeSampleInterval)
	defer sizes.Stop()
	waited := make(map[*pool]time.Duration)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { db.watchSizes(ctx) }) // a slow look at many tables must not hold up the gauges
	wg.Go(func() { db.watchStatements(ctx) })
	db.in.sampled.WithLabelValues("dbsplit", "size").SetToCurrentTime() // until it has succeeded, its age is told from here
	db.sampleSize(ctx)
	counted := false
	for {
		db.samplePools()
		db.sampleWaits(waited)
		db.sampleStaleness()
		db.in.sampled.WithLabelValues("dbsplit", "pools").SetToCurrentTime()
		select {
		case <-ctx.Done():
			return
		case <-pools.C:
			if s := db.snap.Load(); !counted && s != nil && s.settled { // the monitor's own sessions are there
				counted = true
				db.sampleFleet(ctx)
			}
		case <-sizes.C:
			db.sampleSize(ctx)
			db.sampleFleet(ctx)
		}
	}
}

// poolRoles are the values of the label role of the pool series.
const (
	poolPrimary      = "primary"
	poolPrimaryReads = "primary-reads"
	poolReplica      = "replica"
)

// eachPool calls f for the pools in use.
func (db *DB) eachPool(f func(n *node, role string, p *pool)) {
	writer := db.writer.Load()
	for _, n := range db.members() {
		if p := n.writes.Load(); p != nil {
			f(n, poolPrimary, p)
		}
		role := poolReplica
		if n == writer {
			role = poolPrimaryReads
		}
		if p := n.reads.Load(); p != nil {
			f(n, role, p)
		}
	}
}

func (db *DB) samplePools() {
	type sum struct {
		acquired      float64
		most, waiting int64
	}
	sums := make(map[string]sum)
	db.eachPool(func(_ *node, role string, p *pool) {
		stat := p.Stat()
		s := sums[role]
		s.acquired += p.tracer.usage.sample(func() int64 { return int64(p.Stat().AcquiredConns()) }, db.now())
		s.most += int64(stat.MaxConns())
		s.waiting += p.tracer.waiting.Load()
		sums[role] = s
	})
	for role, s := range sums {
		db.in.acquired.WithLabelValues(db.opts.Name, role).Set(s.acquired)
		db.in.max.WithLabelValues(db.opts.Name, role).Set(float64(s.most))
		db.in.waiters.WithLabelValues(db.opts.Name, role).Set(float64(s.waiting))
	}
}

func (db *DB) sampleWaits(before map[*pool]time.Duration) {
	current := make(map[*pool]time.Duration, len(before))
	db.eachPool(func(_ *node, role string, p *pool) {
		total := p.Stat().EmptyAcquireWaitTime()
		db.in.wait.WithLabelValues(db.opts.Name, role).Add(max(0, total-before[p]).Seconds())
		current[p] = total
	})
	clear(before)
	for p, total := range current {
		before[p] = total
	}
}

func (db *DB) sampleStaleness() {
	s := db.snap.Load()
	for _, n := range db.members() {
		if st := db.status(n, s); st.Staleness >= 0 {
			db.show(db.in.stale, n, st.Staleness.Seconds())
		} else {
			db.in.stale.DeleteLabelValues(db.opts.Name, n.name)
		}
	}
}

// show sets a gauge of n. Whoever removes n forgets its series, but not one that is made after that.
func (db *DB) show(gauge *prometheus.GaugeVec, n *node, value float64) {
	gauge.WithLabelValues(db.opts.Name, n.name).Set(value)
	if db.lookUp(n.name) != n {
		gauge.DeleteLabelValues(db.opts.Name, n.name)
	}
}

// measureBy calls f with a connection to n of the pool for reads, within ProbeTimeout, and tells of its failure. When there is no
// connection, the next time will do: the monitor reports a node that is down.
func (db *DB) measureBy(ctx context.Context, n *node, task string, f func(ctx context.Context, c guarded) error) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	c, err := db.acquireRead(ctx, n)
	if err != nil {
		return
	}
	defer c.Release()
	if err := f(ctx, c); err != nil && ctx.Err() == nil {
		db.in.failed(task)
		db.opts.Logger.Warn("dbsplit: cannot measure a node", "db", db.opts.Name, "node", n.name, "task", task, "error", err)
	}
}

func (db *DB) sampleSize(ctx context.Context) {
	db.measureBy(ctx, db.writer.Load(), "size", func(ctx context.Context, c guarded) error {
		var name string
		var size int64
		err := c.QueryRow(ctx, "-- name: dbsplit_size\nselect current_database(), pg_database_size(current_database())").Scan(&name, &size)
		if err == nil {
			db.in.size.WithLabelValues(name).Set(float64(size))
			db.in.sampled.WithLabelValues("dbsplit", "size").SetToCurrentTime()
		}
		return err
	})
}
