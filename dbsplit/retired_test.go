package dbsplit_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// held is a DB whose only connection to write over is held, by a caller who does nothing with it.
func held(t *testing.T, opts dbsplit.Options) (db *dbsplit.DB, c *pgcluster.Cluster, write func() <-chan error, holder pgx.Tx) {
	t.Helper()
	ctx := within(t, 100*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	reg := prometheus.NewRegistry()
	opts.MaxConns, opts.Registerer = 1, reg
	db = run(t, nodesOf(c, "postgres"), &opts)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table notes (n int)")
	holder, err = db.Begin(ctx)
	must(t, err)
	t.Cleanup(func() { _ = holder.Rollback(context.Background()) })
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	return db, c, func() <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := db.Exec(ctx, "insert into notes values (1)")
			result <- err
		}()
		await(t, db, "the write to wait", func() bool {
			return counter(t, reg, "db_pool_waiters", "role", "primary") == 1 || len(result) > 0
		})
		return result
	}, holder
}

// A write that waits for a connection to the old primary, which a caller holds, goes to the new one as soon as writes do.
func TestWaitForAConnectionFollowsTheWriter(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]struct {
		opts  dbsplit.Options
		early bool // it waits when the primary dies
	}{
		"begun before it died":       {opts: dbsplit.Options{FailoverWait: time.Minute}, early: true},
		"begun after":                {opts: dbsplit.Options{FailoverWait: time.Minute}},
		"with PoolWait":              {opts: dbsplit.Options{FailoverWait: time.Minute, PoolWait: time.Second}},
		"that waits for no failover": {opts: dbsplit.Options{FailoverWait: -1}, early: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, c, write, _ := held(t, o.opts)
			var result <-chan error
			if o.early {
				result = write()
			}
			c.Primary().Kill()
			await(t, db, "the primary to be gone", func() bool { return db.Ready(t.Context()) != nil })
			if begun := time.Now(); !o.early {
				result = write()
				await(t, db, "the end of PoolWait", func() bool { return time.Since(begun) > 2*o.opts.PoolWait })
			}
			must(t, c.Replica(0).Promote(t.Context()))
			await(t, db, "the write", func() bool { return len(result) > 0 })
			must(t, <-result)
			if n := get[int](t, t.Context(), db, "select count(*)::int from notes"); n != 1 {
				t.Errorf("%d rows were written", n)
			}
		})
	}
}

// A write that waits for a connection when its primary dies, and is not replaced, waits for FailoverWait from then on.
func TestWaitForAConnectionEndsWithThePrimary(t *testing.T) {
	t.Parallel()
	const wait = 500 * time.Millisecond
	db, c, write, _ := held(t, dbsplit.Options{FailoverWait: wait})
	result := write()
	begun := time.Now()
	c.Primary().Kill()
	await(t, db, "the end of the write", func() bool { return len(result) > 0 })
	err, took := <-result, time.Since(begun)
	if err == nil || !strings.Contains(err.Error(), "promote a replica") || errors.Is(err, dbsplit.ErrOutcomeUnknown) || took < wait {
		t.Errorf("%v after %v", err, took)
	}
}

// A write waits for FailoverWait once: what it has waited for a connection while its primary was away counts when it gets the place and
// cannot connect. So it ends before one that began half of FailoverWait after that.
func TestWaitForAConnectionIsPartOfFailoverWait(t *testing.T) {
	t.Parallel()
	const wait = 3 * time.Second
	db, c, write, holder := held(t, dbsplit.Options{FailoverWait: wait})
	first := write()
	c.Primary().Kill()
	await(t, db, "the primary to be gone", func() bool { return db.Ready(t.Context()) != nil })
	gone := time.Now()
	await(t, db, "half of the patience", func() bool { return time.Since(gone) > wait/2 })
	second := write()
	await(t, db, "the second write to wait", func() bool { return db.Waiting() == 2 })
	_ = holder.Rollback(t.Context()) // its connection is lost, so the place is free
	await(t, db, "the end of a write", func() bool { return len(first)+len(second) > 0 })
	if len(first) == 0 {
		t.Error("the write that began later ended before")
	}
	for _, result := range []<-chan error{first, second} {
		if err := <-result; err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
			t.Error(err)
		}
	}
}

// Whoever waits for a connection of a pool that Resize replaces takes one of the new pool.
func TestWaitForAConnectionFollowsAResize(t *testing.T) {
	t.Parallel()
	db, _, write, holder := held(t, dbsplit.Options{})
	result := write()
	must(t, db.Resize(t.Context(), 2))
	await(t, db, "the write", func() bool { return len(result) > 0 })
	must(t, <-result)
	_, err := holder.Exec(t.Context(), "insert into notes values (2)")
	must(t, err)
	must(t, holder.Commit(t.Context()))
	if n := get[int](t, t.Context(), db, "select count(*)::int from notes"); n != 2 {
		t.Errorf("%d rows were written", n)
	}
}

// Close ends the waits for a connection, and waits for those that are in use.
func TestCloseEndsTheWaitForAConnection(t *testing.T) {
	t.Parallel()
	db, _, write, holder := held(t, dbsplit.Options{})
	result := write()
	closed := make(chan struct{})
	go func() { db.Close(); close(closed) }()
	await(t, db, "the end of the write", func() bool { return len(result) > 0 })
	if err := <-result; !errors.Is(err, dbsplit.ErrClosed) {
		t.Error(err)
	}
	select {
	case <-closed:
		t.Error("a connection in use was not waited for")
	default:
	}
	must(t, holder.Rollback(t.Context()))
	<-closed
}

// Connections that were taken while idle, and given back, hide from nobody that the pool is full.
func TestWaitForAConnectionAfterAcquireAllIdle(t *testing.T) {
	c := shared.Get(t)
	db := open(t, dbsplit.Nodes{Primary: c.Primary().URL(c.Database(t))}, &dbsplit.Options{MaxConns: 1})
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table notes (n int)")
	for _, conn := range db.AcquireAllIdle(ctx) {
		conn.Release()
	}
	holder, err := db.Begin(ctx)
	must(t, err)
	defer holder.Rollback(context.Background()) //nolint:errcheck // a test's
	result := make(chan error, 1)
	go func() {
		_, err := db.Exec(ctx, "insert into notes values (1)")
		result <- err
	}()
	await(t, db, "the write to wait", func() bool { return db.Waiting() == 1 })
	must(t, db.Resize(ctx, 2))
	await(t, db, "the write", func() bool { return len(result) > 0 })
	must(t, <-result)
}

// A connection that is closed has its place in the pool until the server has been told, so who comes then is prepared to wait.
func TestClosedConnectionCountsAsUsed(t *testing.T) {
	t.Parallel()
	ctx := within(t, 100*time.Second)
	db, err := dbsplit.Open(ctx, nodesOf(shared.Get(t), "postgres"), &dbsplit.Options{MaxConns: 1}) // it is not run, so nothing is sampled
	must(t, err)
	defer db.Close()
	for round, closes := range []bool{false, true} {
		c, err := db.Acquire(ctx)
		must(t, err)
		if closes {
			must(t, c.Conn().Close(ctx))
		}
		c.Release()
		if n := db.Used(); n != int64(round) {
			t.Errorf("closed %v: %d connections count as used, want %d", closes, n, round)
		}
	}
}

// cutOff is a DB whose primary can be cut off: nothing arrives there any more, and no attempt to connect to it ends by itself. longest
// is how much time such an attempt has had, at most.
func cutOff(t *testing.T, opts dbsplit.Options) (db *dbsplit.DB, c *pgcluster.Cluster, cut func(), longest *atomic.Int64) {
	t.Helper()
	ctx := within(t, 100*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	p, through := proxied(t, c.Primary(), "postgres")
	nodes := nodesOf(c, "postgres")
	nodes.Primary = through
	db = open(t, nodes, &opts)
	var away atomic.Bool
	longest = new(atomic.Int64)
	over := make(chan struct{})
	db.DialPrimary(func(dial pgconn.DialFunc) pgconn.DialFunc {
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !away.Load() {
				return dial(ctx, network, addr)
			}
			until, bounded := ctx.Deadline()
			if !bounded {
				until = time.Now().Add(time.Hour)
			}
			for had, long := longest.Load(), int64(time.Until(until)); long > had && !longest.CompareAndSwap(had, long); had = longest.Load() {
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-over:
				return nil, errors.New("the test is over")
			}
		}
	})
	must(t, db.Resize(ctx, opts.MaxConns))
	t.Cleanup(start(t, db))
	t.Cleanup(func() { close(over); p.Reset() })
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	exec(t, db, "create table notes (n int)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	return db, c, func() {
		away.Store(true)
		p.Blackhole(faultconn.Both)
	}, longest
}

// Connections to a primary that is cut off are closed by their callers' deadlines, and keep their places in the pool for 15 seconds,
// as that server cannot be told. Writes that wait for those places go to the server that is promoted, or end with their patience.
func TestWaitBehindClosedConnections(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]struct {
		wait    time.Duration
		promote bool
	}{
		"another server is promoted": {time.Minute, true},
		"no other server is":         {500 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const conns = 2
			db, c, cut, _ := cutOff(t, dbsplit.Options{MaxConns: conns, FailoverWait: o.wait, ProbeTimeout: 2 * time.Second, ConnectTimeout: time.Minute})
			ctx := within(t, 60*time.Second)
			var holders [conns]pgx.Tx
			for i := range holders {
				var err error
				holders[i], err = db.Begin(ctx)
				must(t, err)
			}
			cut()
			var told []<-chan struct{}
			for _, tx := range holders {
				short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
				told = append(told, tx.Conn().PgConn().CleanupDone())
				if _, err := tx.Exec(short, "select 1"); err == nil {
					t.Error("the primary that is cut off has answered")
				}
				_ = tx.Rollback(ctx)
				stop()
			}
			results := make(chan error, conns)
			for i := range conns {
				go func() {
					_, err := db.Exec(ctx, "insert into notes values ($1)", i)
					results <- err
				}()
			}
			await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
			if o.promote {
				must(t, c.Replica(0).Promote(ctx))
			}
			await(t, db, "the writes", func() bool { return len(results) == conns })
			for _, done := range told {
				select {
				case <-done:
					t.Error("they waited until the closed connections had left their places")
				default:
				}
			}
			for range conns {
				err := <-results
				if o.promote && err != nil {
					t.Error(err)
				}
				if !o.promote && (err == nil || !strings.Contains(err.Error(), "promote a replica") || errors.Is(err, dbsplit.ErrOutcomeUnknown)) {
					t.Error(err)
				}
			}
			if !o.promote {
				return
			}
			if n := get[int](t, ctx, db, "select count(*)::int from notes"); n != conns {
				t.Errorf("%d rows were written", n)
			}
		})
	}
}

// The attempt to tell a server of a connection that was closed is one to connect, too, and takes no longer. Whoever waits for the place
// of the connection goes on after it if the monitor has given the server up, and otherwise when pgx does not wait for the server any more.
func TestConnectTimeoutBoundsHowLongAServerIsTold(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	db, _, cut, longest := cutOff(t, dbsplit.Options{MaxConns: 1, ConnectTimeout: timeout, ProbeTimeout: time.Minute}) // the monitor's connection stays
	ctx := within(t, 60*time.Second)
	tx, err := db.Begin(ctx)
	must(t, err)
	cut()
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := tx.Exec(short, "select 1"); err == nil {
		t.Error("the primary that is cut off has answered")
	}
	_ = tx.Rollback(ctx)
	await(t, db, "the attempt", func() bool { return longest.Load() > 0 })
	if took := time.Duration(longest.Load()); took > timeout {
		t.Errorf("an attempt to connect had %v, want at most %v", took, timeout)
	}
}

// A connection that has been idle is asked whether it lives before it is used, and closed when it does not answer. Whoever waits for
// that goes to the server that is promoted, or ends with its patience, before the place of the connection is free.
func TestWaitForAnIdleConnection(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]struct {
		wait    time.Duration
		promote bool
	}{
		"another server is promoted": {time.Minute, true},
		"no other server is":         {500 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, c, cut, _ := cutOff(t, dbsplit.Options{MaxConns: 1, FailoverWait: o.wait, ConnectTimeout: time.Minute})
			ctx := within(t, 60*time.Second)
			conn, err := db.Acquire(ctx)
			must(t, err)
			told := conn.Conn().PgConn().CleanupDone()
			conn.Release()
			released := time.Now()
			await(t, db, "the connection to be idle", func() bool { return time.Since(released) > 1100*time.Millisecond })
			cut()
			result := make(chan error, 1)
			go func() {
				_, err := db.Exec(ctx, "insert into notes values (1)")
				result <- err
			}()
			await(t, db, "the primary to be gone", func() bool { return db.Ready(ctx) != nil })
			if o.promote {
				must(t, c.Replica(0).Promote(ctx))
			}
			await(t, db, "the write", func() bool { return len(result) > 0 })
			select {
			case <-told:
				t.Error("it waited until the connection had left its place")
			default:
			}
			if err := <-result; o.promote && err != nil || !o.promote && (err == nil || !strings.Contains(err.Error(), "promote a replica")) {
				t.Error(err)
			}
		})
	}
}

// So does a read: another node answers it.
func TestReadOverAnIdleConnection(t *testing.T) {
	t.Parallel()
	db, _, cut, _ := cutOff(t, dbsplit.Options{MaxConns: 1, PrimaryReadConns: 1, ConnectTimeout: time.Minute})
	ctx := within(t, 60*time.Second)
	read := db.Read(dbsplit.PreferPrimary())
	tx, err := read.Begin(ctx)
	must(t, err)
	told := tx.Conn().PgConn().CleanupDone()
	must(t, tx.Rollback(ctx))
	await(t, db, "the connection to be idle", func() bool { return db.ReadsIdle() > 1100*time.Millisecond })
	cut()
	if s := served(t, ctx, read); s != "replica" {
		t.Errorf("served by the %s", s)
	}
	select {
	case <-told:
		t.Error("it waited until the connection had left its place")
	default:
	}
}
