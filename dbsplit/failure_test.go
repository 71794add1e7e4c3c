package dbsplit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
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

// proxied puts a proxy before a server and returns the URL through it.
func proxied(t testing.TB, s *pgcluster.Server, database string) (*faultconn.Proxy, string) {
	t.Helper()
	p, err := faultconn.New(s.Addr())
	must(t, err)
	t.Cleanup(func() { p.Close() })
	u, err := url.Parse(s.URL(database))
	must(t, err)
	u.Host = p.Addr()
	return p, u.String()
}

func TestReplicaKilledUnderReads(t *testing.T) {
	db, c, _ := settled(t, nil)
	ctx, cancel := context.WithCancel(within(t, 60*time.Second))
	defer cancel()
	var reads atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if i%2 == 0 {
					if err := db.Read().QueryRow(context.Background(), "select 1").Scan(nil); err != nil {
						t.Errorf("QueryRow: %v", err)
					}
				} else {
					rows, _ := db.Read().Query(context.Background(), "select generate_series(1, 3)")
					if got, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || len(got) != 3 {
						t.Errorf("Query: %v, %v", got, err)
					}
				}
				reads.Add(1)
			}
		})
	}
	progress := func() {
		until := reads.Load() + 500
		await(t, db, "reads", func() bool { return reads.Load() >= until })
	}
	progress()
	c.Replica(0).Kill()
	progress()
	await(t, db, "one replica", func() bool { return fresh(db) == 1 })
	must(t, c.Replica(0).Start(ctx))
	await(t, db, "both replicas", func() bool { return fresh(db) == 2 })
	progress()
	cancel()
	wg.Wait()
}

func TestReplicaDownAtStart(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Replica(0), database)
	p.Refuse()
	var log syncBuffer
	reg := prometheus.NewRegistry()
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through}},
		&dbsplit.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg})
	await(t, db, "the first probes", func() bool { return probed(db, 1) && db.Nodes()[0].Up })
	ctx := within(t, 20*time.Second)
	must(t, db.Ready(ctx))
	if s := served(t, ctx, db.Read()); s != "primary" {
		t.Errorf("served by the %s", s)
	}
	if n := db.Nodes()[1]; n.Up || !strings.Contains(n.Advice, "bring it up") {
		t.Errorf("the node says %+v", n)
	}
	if text := log.String(); !strings.Contains(text, "node is down") || !strings.Contains(text, p.Addr()) {
		t.Errorf("the log says %s", text)
	}
	if counter(t, reg, "scaleaware_background_errors_total", "task", "probe") == 0 {
		t.Error("the failure is not counted")
	}
	p.Heal()
	await(t, db, "the replica", func() bool { return served(t, ctx, db.Read()) == "replica" })
}

func TestPrimaryDownAtStart(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Primary(), database)
	p.Refuse()
	db := run(t, dbsplit.Nodes{Primary: through, Replicas: []string{c.Replica(0).URL(database), c.Replica(1).URL(database)}}, nil)
	await(t, db, "the replicas", func() bool { n := db.Nodes(); return n[1].Up && n[2].Up && probed(db, 0) })
	ctx := within(t, 20*time.Second)
	if err := db.Ready(ctx); err == nil || !strings.Contains(err.Error(), "promote a replica") {
		t.Errorf("Ready: %v", err)
	}
	if s := served(t, ctx, db.Read()); s != "replica" {
		t.Errorf("served by the %s", s)
	}
	err := db.Read(dbsplit.MaxStaleness(time.Minute)).QueryRow(ctx, "select 1").Scan(nil)
	if !errors.Is(err, dbsplit.ErrNoNode) || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("a bound that nobody can prove: %v", err)
	}
	if _, err := db.Exec(ctx, "select 1"); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a write: %v", err)
	}
	p.Heal()
	await(t, db, "the primary", func() bool { return db.Ready(ctx) == nil && fresh(db) == 2 })
	exec(t, db, "create table t (n int)")
}

func TestReplicaThatIsNone(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	other, err := pgcluster.Start(within(t, 30*time.Second), nil)
	must(t, err)
	defer other.Close()
	database := c.Database(t)
	var log syncBuffer
	reg := prometheus.NewRegistry()
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{other.Primary().URL("postgres"), c.Replica(0).URL(database)}},
		&dbsplit.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg})
	await(t, db, "the roles", func() bool { return fresh(db) == 1 && db.Nodes()[1].Role == "stranger" })
	ctx := within(t, 20*time.Second)
	for range 20 {
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Fatalf("served by the %s", s)
		}
	}
	if n := db.Nodes()[1]; !strings.Contains(n.Advice, "another cluster") {
		t.Errorf("the node says %+v", n)
	}
	if n := counter(t, reg, "db_reads_total", "node", other.Primary().Addr()); n != 0 {
		t.Errorf("it served %v reads", n)
	}
	await(t, db, "the log", func() bool {
		return strings.Contains(log.String(), "level=ERROR") && strings.Contains(log.String(), "another cluster")
	})
	if counter(t, reg, "db_node_up", "node", other.Primary().Addr(), "role", "stranger") != 1 {
		t.Error("the metrics do not tell")
	}
}

func TestCutStreamIsNotFresh(t *testing.T) {
	db, c, _ := settled(t, nil)
	ctx := within(t, 60*time.Second)
	exec(t, db, "create table t (n int)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
		must(t, r.CutStream(ctx))
		t.Cleanup(func() { must(t, r.RestoreStream(context.Background())) })
	}
	exec(t, db, "insert into t values (1)")
	await(t, db, "the bounds to grow", func() bool { n := db.Nodes(); return n[1].Staleness > time.Second && n[2].Staleness > time.Second })
	if n := get[int](t, ctx, db.Read(dbsplit.MaxStaleness(500*time.Millisecond)), "select count(*)::int from t"); n != 1 {
		t.Error("a read with a bound of 500 ms missed a row that is a second old")
	}
	if n := get[int](t, ctx, db.Read(), "select count(*)::int from t"); n != 0 {
		t.Error("within the default bound the replica should still serve")
	}
}

func TestGate(t *testing.T) {
	g := new(gate)
	db, _, _ := settled(t, &dbsplit.Options{Gate: g})
	ctx := within(t, 20*time.Second)
	notes(t, db)
	g.set(errMaintenance)
	for name, write := range writers {
		if name == "Acquire, still held" || name == "below pgx" {
			continue // a bare connection: PostgreSQL refuses, without our words
		}
		if err := write(ctx, db, 1); !errors.Is(err, errMaintenance) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"Acquire, still held", "below pgx"} {
		held, release := context.WithCancel(ctx)
		if err := writers[name](held, db, 1); err == nil {
			t.Errorf("%s: a write went through", name)
		}
		release()
	}
	if n := get[int](t, ctx, db, "select count(*)::int from notes"); n != 0 {
		t.Errorf("%d writes went through", n)
	}
	tx, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	must(t, err)
	must(t, tx.Rollback(ctx))
	must(t, db.Ping(ctx))
	served(t, ctx, db.Read())
	g.set(nil)
	must(t, writers["Exec"](ctx, db, 1))
}

func TestWriteThroughRead(t *testing.T) {
	db, c, database := settled(t, nil)
	alone := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	notes(t, db)
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(within(t, 10*time.Second)))
	}
	ctx := within(t, 20*time.Second)
	const cte = "with w as (insert into notes values (1) returning n) select n from w"
	for name, r := range map[string]*dbsplit.Reader{
		"a replica": db.Read(), "the primary": db.Read(dbsplit.PreferPrimary()), "without replicas": alone.Read(),
	} {
		if err := r.QueryRow(ctx, cte).Scan(new(int)); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, QueryRow: %v", name, err)
		}
		rows, _ := r.Query(ctx, cte)
		if _, err := pgx.CollectRows(rows, pgx.RowTo[int]); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, Query: %v", name, err)
		}
		if _, err := r.Exec(ctx, "insert into notes values (1)"); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, Exec: %v", name, err)
		}
		var b pgx.Batch
		b.Queue("insert into notes values (1)")
		if err := r.SendBatch(ctx, &b).Close(); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, SendBatch: %v", name, err)
		}
		if _, err := r.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}})); !errors.Is(err, dbsplit.ErrWriteInRead) {
			t.Errorf("%s, CopyFrom: %v", name, err)
		}
		if _, err := r.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite}); err == nil {
			t.Errorf("%s: a read-write transaction was opened", name)
		}
	}
	if n := get[int](t, ctx, db, "select count(*)::int from notes"); n != 0 {
		t.Errorf("%d writes went through", n)
	}
}

// The primary's address comes to be answered by a standby, as a name that moves in a failover, and back.
func TestStandbyAtThePrimarysAddress(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Primary(), database)
	db := run(t, dbsplit.Nodes{Primary: through}, nil)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create table t (n int)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	p.Retarget(c.Replica(0).Addr())
	p.Cut()
	await(t, db, "the refusal", func() bool {
		_, err := db.Exec(ctx, "insert into t values (1)")
		if err == nil {
			t.Fatal("a standby took a write")
		}
		return errors.Is(err, dbsplit.ErrNotPrimary)
	})
	await(t, db, "Ready to fail", func() bool { return errors.Is(db.Ready(ctx), dbsplit.ErrNotPrimary) })
	p.Retarget(c.Primary().Addr())
	p.Cut()
	begun := time.Now()
	await(t, db, "writes", func() bool { _, err := db.Exec(ctx, "insert into t values (1)"); return err == nil })
	if took := time.Since(begun); took > time.Second {
		t.Errorf("writes came back after %v", took)
	}
	await(t, db, "Ready", func() bool { return db.Ready(ctx) == nil })
}

// A replica cancels a read that its replay conflicts with; another node answers.
func TestRecoveryConflict(t *testing.T) {
	db, c, _ := settled(t, nil)
	ctx := within(t, 60*time.Second)
	for _, r := range c.Servers()[1:] {
		must(t, r.Exec(ctx, "alter system set max_standby_streaming_delay = '10ms'", "select pg_reload_conf()"))
		t.Cleanup(func() {
			must(t, r.Exec(context.Background(), "alter system reset max_standby_streaming_delay", "select pg_reload_conf()"))
		})
	}
	exec(t, db, "create table t (n int); insert into t values (1)")
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	result := make(chan error, 1)
	go func() {
		result <- db.Read().QueryRow(ctx, "-- name: LongRead :one\nselect n, pg_sleep(0.7)::text from t").Scan(new(int), new(string))
	}()
	await(t, db, "the read", func() bool {
		for _, r := range c.Servers()[1:] {
			conn, err := r.Connect(ctx, "postgres")
			must(t, err)
			running := get[bool](t, ctx, conn, "select exists (select from pg_stat_activity where query like '-- name: LongRead%' and state = 'active')")
			must(t, conn.Close(ctx))
			if running {
				return true
			}
		}
		return false
	})
	exec(t, db, "alter table t add column m int")
	if err := <-result; err != nil {
		t.Errorf("the read: %v", err)
	}
	conflicts := 0
	for _, r := range c.Servers()[1:] {
		if strings.Contains(r.Log(), "conflict with recovery") {
			conflicts++
		}
	}
	if conflicts == 0 {
		t.Error("no replica has cancelled anything: this test tests nothing")
	}
}

func TestUnprivilegedAndSaturated(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	admin := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	exec(t, admin, "do $$ begin create role stranger login; exception when duplicate_object then null; end $$")
	nodes := nodesOf(c, database)
	nodes.Primary = strings.Replace(nodes.Primary, "postgres@", "stranger@", 1)
	for i := range nodes.Replicas {
		nodes.Replicas[i] = strings.Replace(nodes.Replicas[i], "postgres@", "stranger@", 1)
	}
	var text syncBuffer
	db := run(t, nodes, &dbsplit.Options{MaxConns: 1, PrimaryReadConns: 1, Logger: slog.New(slog.NewTextHandler(&text, nil))})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	for _, n := range db.Nodes() {
		if lacks := strings.Join(n.Lacks, "; "); !strings.Contains(lacks, "pg_monitor: ") || !strings.Contains(lacks, "pg_signal_backend: ") || !strings.Contains(lacks, "pg_read_file") {
			t.Errorf("%s lacks %q", n.Name, lacks)
		}
	}
	if n := strings.Count(text.String(), "lacks privileges"); n != 3 {
		t.Errorf("the log tells of missing privileges %d times, want once for each node:\n%s", n, text.String())
	}
	ctx := within(t, 20*time.Second)
	for range 2 { // every pool is in use; the monitor still sees
		tx, err := db.Read().Begin(ctx)
		must(t, err)
		defer tx.Rollback(context.Background())
	}
	conn, err := db.Acquire(ctx)
	must(t, err)
	defer conn.Release()
	primary, err := db.Read(dbsplit.PreferPrimary()).Begin(ctx)
	must(t, err)
	defer primary.Rollback(context.Background())
	exec(t, admin, "create table t (n int)")
	await(t, db, "new probes", func() bool { n := db.Nodes(); return n[1].Staleness < 300*time.Millisecond && n[1].LSN >= n[0].LSN })
	must(t, db.Ready(ctx))
}

func TestBeforeAndAfterRun(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	db := open(t, nodesOf(c, database), nil)
	ctx := within(t, 20*time.Second)
	if s := served(t, ctx, db.Read()); s != "primary" {
		t.Errorf("before Run served by the %s", s)
	}
	must(t, db.Ready(ctx))
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- db.Run(running) }()
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	if err := db.Run(ctx); err == nil {
		t.Error("Run runs twice")
	}
	cancel()
	must(t, <-ended)
	if s := served(t, ctx, db.Read()); s != "primary" {
		t.Errorf("after Run served by the %s", s)
	}
	db.Close()
	if _, err := db.Exec(ctx, "select 1"); !errors.Is(err, dbsplit.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := db.Read().QueryRow(ctx, "select 1").Scan(nil); !errors.Is(err, dbsplit.ErrClosed) {
		t.Errorf("a read after Close: %v", err)
	}
	if err := db.Ready(ctx); !errors.Is(err, dbsplit.ErrClosed) {
		t.Errorf("Ready after Close: %v", err)
	}
}

// No password reaches an error, the log or a report.
func TestPasswordStaysSecret(t *testing.T) {
	const canary = "c4n4ry"
	var log syncBuffer
	reg := prometheus.NewRegistry()
	db := run(t, dbsplit.Nodes{Primary: "postgres://app:" + canary + "@127.0.0.1:1/db", Replicas: []string{"host=127.0.0.1 port=2 password=" + canary}},
		&dbsplit.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), Registerer: reg})
	await(t, db, "both to be logged", func() bool { return strings.Count(log.String(), "node is down") == 2 })
	ctx := within(t, 20*time.Second)
	_, execErr := db.Exec(ctx, "select 1")
	_, position := db.Position(ctx)
	for _, err := range []error{execErr, position, db.Ready(ctx), db.Read().QueryRow(ctx, "select 1").Scan(nil)} {
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%v", err)
		}
	}
	if strings.Contains(log.String(), canary) {
		t.Errorf("the log: %s", log.String())
	}
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		if strings.Contains(f.String(), canary) {
			t.Errorf("metrics: %v", f)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*syncBuffer)(nil)

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
