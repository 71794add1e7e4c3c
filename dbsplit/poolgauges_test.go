package dbsplit_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// Pools in use, and those who wait for them, show in what is exported, while it lasts and afterwards.
func TestPoolGaugesWhileInUse(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{MaxConns: 2, Registerer: reg})
	ctx := within(t, 90*time.Second)
	of := func(name, role string) float64 { return counter(t, reg, name, "pool", "db", "role", role) }
	acquired := func(role string) float64 { return of("db_pool_acquired_connections", role) }
	waiters := func(role string) float64 { return of("db_pool_waiters", role) }
	near := func(a, b float64) bool { return math.Abs(a-b) < 0.01 }

	for role, most := range map[string]float64{"primary": 2, "primary-reads": 2, "replica": 4} {
		if n := of("db_pool_max_connections", role); n != most {
			t.Errorf("at most %v connections of %s, want %v", n, role, most)
		}
		await(t, db, "an idle pool of "+role, func() bool { return acquired(role) == 0 && waiters(role) == 0 })
	}

	var held []interface{ Rollback(context.Context) error }
	for range 2 {
		tx, err := db.Begin(ctx)
		must(t, err)
		held = append(held, tx)
	}
	tx, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	must(t, err)
	held = append(held, tx)
	await(t, db, "a second in which both were in use", func() bool { return near(acquired("primary"), 2) })
	await(t, db, "a second in which one of the replicas' was in use", func() bool { return near(acquired("replica"), 1) })

	observed, above, sum := acquireTimes(t, reg, 1)
	waited := of("db_pool_acquire_wait_seconds_total", "primary")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := db.Exec(ctx, "select 1"); err != nil {
				t.Error(err)
			}
		})
	}
	await(t, db, "three who wait", func() bool { return waiters("primary") == 3 })
	seen := time.Now()
	const least = 1100 * time.Millisecond
	await(t, db, "their wait to be long", func() bool { return time.Since(seen) > least })
	if n := waiters("primary"); n != 3 || !near(acquired("primary"), 2) {
		t.Errorf("%v wait and %v are in use, want 3 and 2", n, acquired("primary"))
	}
	if n := waiters("replica") + waiters("primary-reads"); n != 0 {
		t.Errorf("%v wait for pools that are free", n)
	}
	for _, tx := range held {
		must(t, tx.Rollback(ctx))
	}
	wg.Wait()
	afterObserved, afterAbove, afterSum := acquireTimes(t, reg, 1)
	if afterObserved < observed+3 || afterAbove != above+3 || afterSum-sum < 3*least.Seconds() {
		t.Errorf("the histogram has %d waits more, %d of them above 1 s, and %.1f s; want 3 of more than %v", afterObserved-observed, afterAbove-above, afterSum-sum, least)
	}
	await(t, db, "their time", func() bool {
		return of("db_pool_acquire_wait_seconds_total", "primary")-waited >= 3*least.Seconds()
	})
	for _, role := range []string{"primary", "replica"} {
		await(t, db, "the pool of "+role+" to be idle again", func() bool { return acquired(role) == 0 && waiters(role) == 0 })
	}
}

// acquireTimes is how often the writing pool's connections were waited for, how often longer than a bucket's bound, and for how
// many seconds in all.
func acquireTimes(t *testing.T, reg *prometheus.Registry, bound float64) (count, above uint64, sum float64) {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() != "db_pool_acquire_duration_seconds" || l.GetName() != "role" || l.GetValue() != "primary" {
					continue
				}
				h := m.GetHistogram()
				count, sum = h.GetSampleCount(), h.GetSampleSum()
				for _, b := range h.GetBucket() {
					if b.GetUpperBound() == bound {
						return count, count - b.GetCumulativeCount(), sum
					}
				}
				t.Fatalf("no bucket ends at %v", bound)
			}
		}
	}
	return 0, 0, 0
}

// What is in use now and then counts by its time: a look at one moment would see all of a connection, or nothing.
func TestPoolUtilisationIsWeightedByTime(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	db, c, database := settled(t, &dbsplit.Options{MaxConns: 2, Registerer: reg})
	ctx, stop := context.WithCancel(within(t, 60*time.Second))
	clock, err := c.Primary().Connect(ctx, database)
	must(t, err)
	defer clock.Close(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_, err := db.Exec(ctx, "select pg_sleep(0.02)")
			if err == nil {
				_, err = clock.Exec(ctx, "select pg_sleep(0.02)") // meanwhile the pool is free
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	seen := make(map[float64]bool)
	await(t, db, "three samples between idle and busy", func() bool {
		if n := counter(t, reg, "db_pool_acquired_connections", "role", "primary"); n > 0.05 && n < 0.95 {
			seen[n] = true
		}
		return len(seen) >= 3
	})
	stop()
	wg.Wait()
	await(t, db, "the pool to be idle again", func() bool {
		return counter(t, reg, "db_pool_acquired_connections", "role", "primary") == 0
	})
}
