package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// Writes that begin while there is no primary wait for the promotion, instead of failing. Those that were under way when
// it died have an unknown outcome, or had not begun; none is applied twice.
func TestWritesWaitForTheFailover(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{FailoverWait: time.Minute})
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table ledger (id int)") // without a key: a second application would show
	must(t, c.Replica(0).WaitCaughtUp(ctx))

	const insert = "insert into ledger values ($1)"
	handle := openSQL(t, db.Connector())
	ways := []func(ctx context.Context, id int) error{
		func(ctx context.Context, id int) error { _, err := db.Exec(ctx, insert, id); return err },
		func(ctx context.Context, id int) error {
			return db.QueryRow(ctx, insert+" returning id", id).Scan(nil)
		},
		func(ctx context.Context, id int) error {
			rows, err := db.Query(ctx, insert+" returning id", id)
			if err == nil {
				_, err = pgx.CollectRows(rows, pgx.RowTo[int])
			}
			return err
		},
		func(ctx context.Context, id int) error {
			return db.InTx(ctx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insert, id); return err })
		},
		func(ctx context.Context, id int) error {
			_, err := db.CopyFrom(ctx, pgx.Identifier{"ledger"}, []string{"id"}, pgx.CopyFromRows([][]any{{id}}))
			return err
		},
		func(ctx context.Context, id int) error { _, err := handle.ExecContext(ctx, insert, id); return err },
		func(ctx context.Context, id int) error {
			return handle.QueryRowContext(ctx, insert+" returning id", id).Scan(new(int))
		},
		func(ctx context.Context, id int) error {
			tx, err := handle.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			if _, err := tx.ExecContext(ctx, insert, id); err != nil {
				return err
			}
			return tx.Commit()
		},
	}
	var next, done atomic.Int64
	var mu sync.Mutex
	outcome := make(map[int]error)
	writing, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	for _, way := range ways {
		writers.Go(func() {
			for writing.Err() == nil {
				id := int(next.Add(1))
				err := way(ctx, id)
				done.Add(1)
				mu.Lock()
				outcome[id] = err
				mu.Unlock()
			}
		})
	}
	progress := func(n int64) {
		until := done.Load() + n
		await(t, db, "writes", func() bool { return done.Load() >= until })
	}
	progress(100)
	c.Primary().Kill()
	await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
	before := next.Load()
	must(t, c.Replica(0).Promote(ctx))
	progress(100)
	stop()
	writers.Wait()

	found := make(map[int]int)
	rows, err := db.Query(ctx, "select id from ledger")
	must(t, err)
	var id int
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error { found[id]++; return nil })
	must(t, err)
	unknown := 0
	for id, err := range outcome {
		switch n := found[id]; {
		case n > 1:
			t.Errorf("write %d was applied %d times", id, n)
		case errors.Is(err, dbsplit.ErrOutcomeUnknown):
			unknown++
		case err == nil && n == 0 && int64(id) > before:
			t.Errorf("write %d was acknowledged after the promotion and is not there", id)
		case err != nil && int64(id) > before:
			t.Errorf("write %d, begun after the primary was gone: %v", id, err)
		case err != nil && n > 0:
			t.Errorf("write %d failed with %v and is there", id, err)
		}
	}
	if unknown > len(ways) {
		t.Errorf("%d outcomes are unknown, of %d writers", unknown, len(ways))
	}
}

// The patience ends, and it is not that of callers who have less.
func TestFailoverWaitEnds(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	for wait, least := range map[time.Duration]time.Duration{-1: 0, 300 * time.Millisecond: 300 * time.Millisecond} {
		db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{FailoverWait: wait})
		await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
		c.Primary().Kill()
		await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
		begun := time.Now()
		_, err := db.Exec(ctx, "select 1")
		if took := time.Since(begun); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) || took < least {
			t.Errorf("with %v: %v after %v", wait, err, took)
		}
		must(t, c.Primary().Start(ctx))
		await(t, db, "the primary to be back", func() bool { return db.Ready(ctx) == nil })
	}
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{FailoverWait: time.Hour})
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	c.Primary().Kill()
	await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := db.Exec(short, "select 1"); err == nil {
		t.Error("a write without a primary went well")
	}
	if ctx.Err() != nil {
		t.Error("it waited beyond its context")
	}
}

// A primary that has vanished in silence is waited for no longer than one that refuses: while it is known to be down, an
// attempt to connect to it is part of the wait.
func TestFailoverWaitIncludesConnecting(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Primary(), database)
	nodes := nodesOf(c, database)
	nodes.Primary = through
	const wait, silence = 300 * time.Millisecond, 6 * time.Second // as long hangs an attempt to connect
	db := run(t, nodes, &dbsplit.Options{FailoverWait: wait, ConnectTimeout: 2 * silence, ProbeTimeout: silence})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	exec(t, db, "create table ledger (id int)")
	handle := openSQL(t, db.Connector())
	p.Blackhole(faultconn.Both)
	await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
	const insert = "insert into ledger values (1)"
	for name, write := range map[string]func() error{
		"Exec":     func() error { _, err := db.Exec(ctx, insert); return err },
		"QueryRow": func() error { return db.QueryRow(ctx, insert+" returning id").Scan(nil) },
		"InTx": func() error {
			return db.InTx(ctx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insert); return err })
		},
		"CopyFrom": func() error {
			_, err := db.CopyFrom(ctx, pgx.Identifier{"ledger"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}}))
			return err
		},
		"SendBatch": func() error {
			b := new(pgx.Batch)
			b.Queue(insert)
			return db.SendBatch(ctx, b).Close()
		},
		"sql.DB": func() error { _, err := handle.ExecContext(ctx, insert); return err },
	} {
		begun := time.Now()
		err := write()
		took := time.Since(begun)
		t.Logf("%s: %v after %v", name, err, took)
		if err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "promote a replica") {
			t.Errorf("%s: %v", name, err)
		}
		if took < wait || took > wait+silence/2 { // leaves room for a busy machine
			t.Errorf("%s failed after %v, want %v", name, took, wait)
		}
	}
	p.Heal()
	await(t, db, "the primary to be back", func() bool { return db.Ready(ctx) == nil })
	if n := get[int](t, ctx, db, "select count(*)::int from ledger"); n != 0 {
		t.Errorf("%d of the writes that failed are there", n)
	}
}

// A write that waits for a connection which others use is not given up because the monitor did not reach the primary for a
// moment, nor because the server, which is up, lets nobody in who would look at it. It waits for PoolWait, where that is set.
func TestFailoverWaitIsNotForThePool(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]string{"for a moment": "select 1", "as long as it waits": "alter role app connection limit 1"} {
		for _, poolWait := range []time.Duration{0, 500 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, PoolWait %v", name, poolWait), func(t *testing.T) {
				t.Parallel()
				ctx := within(t, 60*time.Second)
				c, err := pgcluster.Start(ctx, &pgcluster.Options{})
				must(t, err)
				t.Cleanup(func() { c.Close() })
				must(t, c.Primary().Exec(ctx, "create role app login", "grant create, usage on schema public to app"))
				const wait = 5 * time.Second // for a probe, on a busy machine
				nodes := dbsplit.Nodes{Primary: asRole(t, c.Primary().URL("postgres"), "app")}
				db := run(t, nodes, &dbsplit.Options{MaxConns: 1, ProbeInterval: time.Second, FailoverWait: wait, PoolWait: poolWait})
				await(t, db, "the primary", func() bool { return db.Ready(ctx) == nil && probed(db, 0) })
				exec(t, db, "create table notes (n int)")
				tx, err := db.Begin(ctx)
				must(t, err)
				defer tx.Rollback(context.Background())
				must(t, c.Primary().Exec(ctx, then, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'db monitor'"))
				await(t, db, "the monitor to find nobody", func() bool { return db.Ready(ctx) != nil })
				begun := time.Now()
				result := make(chan error, 1)
				go func() {
					_, err := db.Exec(ctx, "insert into notes values (1)")
					result <- err
				}()
				if poolWait > 0 {
					await(t, db, "the end of PoolWait", func() bool { return len(result) > 0 })
					if err := <-result; !errors.Is(err, dbsplit.ErrSaturated) {
						t.Errorf("%v, after %v, want ErrSaturated", err, time.Since(begun))
					}
					return
				}
				await(t, db, "more than the patience with a primary that is away", func() bool { return len(result) > 0 || time.Since(begun) > wait+time.Second })
				must(t, tx.Commit(ctx))
				if err := <-result; err != nil {
					t.Errorf("%v, after %v", err, time.Since(begun))
				}
			})
		}
	}
}

// missed is a DB with one connection to write over, which is in use, and a monitor that has just found nobody; the server is up.
func missed(t *testing.T, opts dbsplit.Options) (db *dbsplit.DB, reg *prometheus.Registry, holder pgx.Tx) {
	t.Helper()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	reg = prometheus.NewRegistry()
	opts.MaxConns, opts.ProbeInterval, opts.Registerer = 1, time.Second, reg
	db = run(t, nodesOf(c, "postgres"), &opts)
	await(t, db, "the primary", func() bool { return db.Ready(ctx) == nil && probed(db, 0) })
	exec(t, db, "create table notes (place serial, n int)")
	holder, err = db.Begin(ctx)
	must(t, err)
	t.Cleanup(func() { _ = holder.Rollback(context.Background()) })
	must(t, c.Primary().Exec(ctx, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'db monitor'"))
	await(t, db, "the monitor to find nobody", func() bool { return db.Ready(ctx) != nil })
	return db, reg, holder
}

// A write that has waited for a primary which is back keeps its place among those who wait for a connection, and its wait is
// measured once.
func TestFailoverWaitKeepsItsPlace(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	const wait = 5 * time.Second // for a probe, on a busy machine
	db, reg, holder := missed(t, dbsplit.Options{FailoverWait: wait})
	begun := time.Now()
	observed, _, _ := acquireTimes(t, reg, 1)
	results := make(chan error, 2)
	write := func(n float64) {
		go func() {
			_, err := db.Exec(ctx, "insert into notes (n) values ($1)", int(n))
			results <- err
		}()
		await(t, db, "a write to wait", func() bool { return counter(t, reg, "db_pool_waiters", "role", "primary") == n })
	}
	write(1)
	await(t, db, "the primary to be back", func() bool { return db.Ready(ctx) == nil })
	write(2)
	await(t, db, "the end of the patience", func() bool { return time.Since(begun) > wait+time.Second })
	must(t, holder.Rollback(ctx))
	must(t, errors.Join(<-results, <-results))
	if n := get[int](t, ctx, db, "select n from notes order by place limit 1"); n != 1 {
		t.Errorf("write %d had the connection first", n)
	}
	if after, _, _ := acquireTimes(t, reg, 1); after-observed != 3 {
		t.Errorf("three acquisitions are measured %d times", after-observed)
	}
}

// A write that has outlived one absence of its primary, and then waits for a connection, has all of its patience at the next one.
func TestFailoverWaitBeginsWithEachAbsence(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]bool{"it began behind another one": false, "it had failed to connect": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, 60*time.Second)
			c := shared.Get(t)
			p, through := proxied(t, c.Primary(), c.Database(t))
			const wait = 5 * time.Second // for a probe, on a busy machine
			db := run(t, dbsplit.Nodes{Primary: through}, &dbsplit.Options{MaxConns: 1, FailoverWait: wait})
			await(t, db, "the primary", func() bool { return db.Ready(ctx) == nil && probed(db, 0) })
			type result struct {
				tx  pgx.Tx
				err error
			}
			results := make(chan result, 2)
			begin := func() {
				go func() {
					tx, err := db.Begin(ctx)
					results <- result{tx, err}
				}()
			}
			one := func() pgx.Tx {
				t.Helper()
				r := <-results
				must(t, r.err)
				t.Cleanup(func() { _ = r.tx.Rollback(context.Background()) })
				return r.tx
			}
			leave := func() {
				p.Refuse()
				p.Reset()
				await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
			}
			var holder pgx.Tx
			if !away {
				begin()
				holder = one()
			}
			leave()
			begin()
			if away {
				begin()
				await(t, db, "both to wait for the primary", func() bool { return db.Orphans() == 2 })
			} else {
				await(t, db, "it to wait for a connection", func() bool { return db.Waiting() == 1 })
			}
			begun := time.Now()
			p.Heal()
			if away {
				holder = one()
			}
			await(t, db, "the primary to be back", func() bool { return db.Ready(ctx) == nil && db.Waiting() == 1 })
			await(t, db, "the end of the patience", func() bool { return time.Since(begun) > wait+time.Second })
			leave()
			_ = holder.Rollback(ctx)
			await(t, db, "the other one to wait for the primary", func() bool { return db.Orphans() == 1 || len(results) > 0 })
			p.Heal()
			must(t, one().Commit(ctx))
		})
	}
}

// A primary that answers the monitor, over the connection that it has, and lets nobody else connect is not tried for ever.
func TestFailoverWaitEndsBesideAMonitorThatIsAnswered(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c := shared.Get(t)
	p, through := proxied(t, c.Primary(), c.Database(t))
	hole, err := net.Listen("tcp", "127.0.0.1:0") // who connects to it hears nothing
	must(t, err)
	t.Cleanup(func() { hole.Close() })
	db := run(t, dbsplit.Nodes{Primary: through}, &dbsplit.Options{FailoverWait: time.Second, ConnectTimeout: 500 * time.Millisecond})
	await(t, db, "the primary", func() bool { return db.Ready(ctx) == nil && probed(db, 0) })
	tx, err := db.Begin(ctx) // on the connection that there is
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	p.Retarget(hole.Addr().String())
	short, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := db.Exec(short, "select 1"); err == nil || short.Err() != nil {
		t.Errorf("%v, after all of the caller's time", err)
	}
	if err := db.Ready(ctx); err != nil {
		t.Errorf("the monitor was not answered, the test is out of date: %v", err)
	}
}

// PoolWait begins once, also when it is longer than the patience with a primary that is away.
func TestFailoverWaitIsPartOfPoolWait(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	const wait, poolWait = 5 * time.Second, 6 * time.Second
	db, _, _ := missed(t, dbsplit.Options{FailoverWait: wait, PoolWait: poolWait})
	begun := time.Now()
	_, err := db.Exec(ctx, "insert into notes (n) values (1)")
	if took := time.Since(begun); !errors.Is(err, dbsplit.ErrSaturated) || took < poolWait || took >= wait+poolWait {
		t.Errorf("%v after %v, want ErrSaturated after %v", err, took, poolWait)
	}
}

// A read that replicas refuse, and so only a primary can answer, waits for the promotion as writes do: also that of the replica which
// has refused it.
func TestReadForThePrimaryWaitsForTheFailover(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	dbs := make(map[time.Duration]*dbsplit.DB)
	for _, wait := range []time.Duration{-1, 300 * time.Millisecond, time.Minute} {
		dbs[wait] = run(t, nodesOf(c, "postgres"), &dbsplit.Options{FailoverWait: wait})
		await(t, dbs[wait], "a fresh replica", func() bool { return fresh(dbs[wait]) == 1 })
	}
	c.Primary().Kill()
	for _, db := range dbs {
		await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
	}
	begin := func(wait time.Duration) (pgx.Tx, error) {
		return dbs[wait].Read().BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable})
	}
	for _, wait := range []time.Duration{-1, 300 * time.Millisecond} {
		begun := time.Now()
		if _, err := begin(wait); !errors.Is(err, dbsplit.ErrNoNode) || time.Since(begun) < wait {
			t.Errorf("with %v: %v after %v", wait, err, time.Since(begun))
		}
	}
	db := dbs[time.Minute]
	result := make(chan error, 1)
	go func() {
		tx, err := begin(time.Minute)
		if err == nil {
			var at string
			err = tx.QueryRow(ctx, "select concat_ws(' ', current_setting('transaction_isolation'), pg_is_in_recovery())").Scan(&at)
			if at != "serializable f" {
				t.Errorf("it was answered as %q", at)
			}
			err = errors.Join(err, tx.Commit(ctx))
		}
		result <- err
	}()
	await(t, db, "the read to wait", func() bool { return db.Orphans() > 0 || len(result) > 0 })
	must(t, c.Replica(0).Promote(ctx))
	must(t, <-result)
}

// So does one that waits for a connection to the primary when that falls silent.
func TestReadForAPrimaryThatFallsSilentWaitsForTheFailover(t *testing.T) {
	t.Parallel()
	db, c, cut, _ := cutOff(t, dbsplit.Options{MaxConns: 1, PrimaryReadConns: 1, FailoverWait: time.Minute, ConnectTimeout: time.Minute})
	ctx := within(t, 60*time.Second)
	holder, err := db.Read(dbsplit.PreferPrimary()).Begin(ctx)
	must(t, err)
	defer holder.Rollback(context.Background())
	var went routes
	cut()
	result := make(chan error, 1)
	go func() {
		_, err := db.Read(dbsplit.OnRoute(went.note)).Exec(ctx, "begin isolation level serializable; select 1; commit")
		result <- err
	}()
	await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
	await(t, db, "the read to wait", func() bool { return db.Orphans() > 0 || len(result) > 0 })
	must(t, c.Replica(0).Promote(ctx))
	must(t, <-result)
	if to := went.all(); len(to) != 2 || to[0] != c.Replica(0).Addr() || to[1] != c.Replica(0).Addr() {
		t.Errorf("it went to %v", to)
	}
}
