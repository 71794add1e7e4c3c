package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/metrics"
)

type dbTest struct {
	size  dbSize
	conn  *pgx.Conn // to the primary; tells its recorder
	db    *dbsplit.DB
	pools *prometheus.Registry
	ids   []string
	stop  func()

	tally     *Tally
	worstLag  time.Duration
	worstPool float64
}

func openDBTest(ctx context.Context, on servers, size dbSize) (_ *dbTest, err error) {
	t := &dbTest{size: size, pools: prometheus.NewRegistry(), tally: NewTally(), stop: func() {}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.conn, err = fillDB(ctx, on.primary, size); err != nil {
		return nil, err
	}
	rows, err := t.conn.Query(ctx, `SELECT id::text FROM "Lead" LIMIT 10000`)
	if err != nil {
		return nil, err
	}
	if t.ids, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return nil, err
	}
	t.db, err = dbsplit.Open(ctx, dbsplit.Nodes{Primary: on.primary, Replicas: on.replicas}, &dbsplit.Options{MinConns: size.pool, MaxConns: size.pool, Registerer: t.pools})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { _ = t.db.Run(running) })
	t.stop = func() { cancel(); group.Wait() }
	err = await(ctx, func() bool {
		for _, n := range t.db.Nodes() {
			if !n.Up || n.Role == "replica" && n.Staleness < 0 {
				return false
			}
		}
		return true
	})
	return t, errors.Join(err, t.warmUp(ctx))
}

// warmUp fills the pools: the first connections are no matter of the statements.
func (t *dbTest) warmUp(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2 * int(t.size.pool))
	for range t.size.pool {
		for _, s := range lead.Statements() {
			group.Go(func() error { return t.run(ctx, s) })
		}
	}
	return group.Wait()
}

func (t *dbTest) close() {
	t.stop()
	if t.db != nil {
		t.db.Close()
	}
	if t.conn != nil {
		t.conn.Close(context.Background())
	}
}

// The runbook's thresholds are the table's warnings.
func threshold(id string) float64 {
	for _, row := range metrics.KeyMetrics().Rows {
		if row.ID == id {
			return row.Warning
		}
	}
	panic("no key metric " + id)
}

func (t *dbTest) probes() []probe {
	probes := []probe{{"statements run under load", t.load}}
	for _, s := range lead.Statements() {
		probes = append(probes,
			probe{s.Name + " is fast", func(context.Context) (string, error) { return t.fast(s.Name) }},
			probe{s.Name + " reads no large table from end to end", func(ctx context.Context) (string, error) { return t.plan(ctx, s) }})
	}
	return append(probes, probe{"replicas keep up", t.lag}, probe{"the pool suffices", t.pool})
}

// load runs all statements in turn, at the rate, and watches replicas and pools meanwhile.
func (t *dbTest) load(ctx context.Context) (string, error) {
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { t.watch(watching) })
	defer func() { stop(); watcher.Wait() }()

	if err := t.size.meanwhile(ctx); err != nil {
		return "", err
	}
	statements := lead.Statements()
	begin, n := time.Now(), 0
	var running sync.WaitGroup
	defer running.Wait()
	for at := range arrivals([]Phase{{Duration: t.size.duration.Seconds(), ArrivalRate: t.size.rate}}) {
		due := begin.Add(at)
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(time.Until(due)):
		}
		s := statements[n%len(statements)]
		n++
		running.Go(func() {
			if err := t.run(ctx, s); err != nil {
				t.tally.Fail(fmt.Errorf("%s: %w", s.Name, err))
			}
			t.tally.Answered(s.Name, time.Since(due))
		})
	}
	running.Wait()
	var errs []error
	for text, times := range t.tally.errors {
		errs = append(errs, fmt.Errorf("%d times: %s", times, text))
	}
	return fmt.Sprintf(": %d in %v", n, t.size.duration), errors.Join(errs...)
}

func (t *dbTest) run(ctx context.Context, s lead.Statement) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	id := t.ids[rand.IntN(len(t.ids))]
	if s.Read != nil {
		return s.Read(ctx, t.db.Read(), id)
	}
	return t.db.InTx(ctx, func(tx pgx.Tx) error { return s.Write(ctx, tx, id) })
}

// watch keeps the worst of what it sees, four times a second.
func (t *dbTest) watch(ctx context.Context) {
	for {
		for _, n := range t.db.Nodes() {
			if n.Role == "replica" {
				t.worstLag = max(t.worstLag, n.Staleness)
			}
		}
		acquired, most := t.gauges(metrics.DBPoolAcquired.Name), t.gauges(metrics.DBPoolMax.Name)
		for pool, value := range acquired {
			if most[pool] > 0 {
				t.worstPool = max(t.worstPool, value/most[pool])
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// gauges returns a series by its labels.
func (t *dbTest) gauges(name string) map[string]float64 {
	out := map[string]float64{}
	families, err := t.pools.Gather()
	if err != nil {
		return out
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, "/")] = m.GetGauge().GetValue()
		}
	}
	return out
}

func (t *dbTest) fast(name string) (string, error) {
	bound := 1000 * t.size.patience * threshold("db_query_time")
	for _, row := range t.tally.Rows() {
		if row.Name == name {
			return fmt.Sprintf(": p95 %.1f ms, p99 %.1f ms of %d", row.P95, row.P99, row.Requests),
				want(row.P95 < bound, "p95 is %.1f ms, want less than %.0f ms", row.P95, bound)
		}
	}
	return "", errors.New("it never ran")
}

func (t *dbTest) lag(context.Context) (string, error) {
	return fmt.Sprintf(": %v behind at most", t.worstLag.Round(time.Millisecond)),
		want(t.worstLag < t.size.lag, "one was %v behind, want less than %v", t.worstLag.Round(time.Millisecond), t.size.lag)
}

func (t *dbTest) pool(context.Context) (string, error) {
	bound := threshold("db_pool_utilization")
	return fmt.Sprintf(": %.0f %% in use at most", 100*t.worstPool),
		want(t.worstPool < bound, "%.0f %% of its connections were in use, want less than %.0f %%", 100*t.worstPool, 100*bound)
}
