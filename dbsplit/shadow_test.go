package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// shadowing is a DB whose reads are answered by the second replica, and compared with the first.
type shadowing struct {
	*dbsplit.DB
	c       *pgcluster.Cluster
	reg     *prometheus.Registry
	results chan dbsplit.ShadowResult
}

func shadowed(t *testing.T) shadowing {
	t.Helper()
	s := shadowing{reg: prometheus.NewRegistry(), results: make(chan dbsplit.ShadowResult, 100)}
	s.DB, s.c, _ = settled(t, &dbsplit.Options{Registerer: s.reg, ProbeTimeout: 20 * time.Second})
	exec(t, s.DB, "create table notes (id int, text text); insert into notes select n, case when n % 3 > 0 then 'note ' || n end from generate_series(1, 20) n")
	for _, r := range s.c.Servers()[1:] {
		must(t, r.WaitCaughtUp(t.Context()))
	}
	return s
}

func (s shadowing) read(opts ...dbsplit.ReadOption) *dbsplit.Reader {
	return s.Read(append(opts, dbsplit.Canary(s.c.Replica(1).Addr(), 1), dbsplit.Shadow(s.c.Replica(0).Addr(), 1, func(_ context.Context, r dbsplit.ShadowResult) { s.results <- r }))...)
}

func (s shadowing) outcome(t *testing.T, outcome string, n float64) {
	t.Helper()
	await(t, s.DB, fmt.Sprintf("%v reads counted as %s", n, outcome), func() bool {
		return counter(t, s.reg, "db_shadow_reads_total", "outcome", outcome) >= n
	})
	if got := counter(t, s.reg, "db_shadow_reads_total", "outcome", outcome); got != n {
		t.Errorf("%v reads are counted as %s, want %v", got, outcome, n)
	}
}

func TestShadow(t *testing.T) {
	s := shadowed(t)
	ctx := within(t, 60*time.Second)
	const list = "select id, text from notes where id > any($1::int[]) order by id"
	arg := []int32{3}
	collect := func(r *dbsplit.Reader, sql string, args ...any) int {
		t.Helper()
		rows, _ := r.Query(ctx, sql, args...)
		got, err := pgx.CollectRows(rows, pgx.RowToMap)
		must(t, err)
		return len(got)
	}
	if n := collect(s.read(), list, arg); n != 17 {
		t.Errorf("%d rows", n)
	}
	arg[0] = 99 // the caller's again
	s.outcome(t, "same", 1)
	get[string](t, ctx, s.read(), "select text from notes order by id")
	s.outcome(t, "same", 2)
	if err := s.read().QueryRow(ctx, "select 1 where false").Scan(nil); !errors.Is(err, pgx.ErrNoRows) {
		t.Error(err)
	}
	s.outcome(t, "same", 3)
	collect(s.read(dbsplit.Hedge(0)), list, []int32{0})
	s.outcome(t, "same", 4)
	if n := len(s.results); n != 0 {
		t.Errorf("%d reads were reported: %+v", n, <-s.results)
	}

	collect(s.read(), "select inet_server_port(), $1::int", 5) // what differs for sure
	s.outcome(t, "different", 1)
	r := <-s.results
	if r.Err != nil || r.SQL != "select inet_server_port(), $1::int" || r.Answer.Rows != 1 || r.Shadow.Rows != 1 || r.Answer.Hash == r.Shadow.Hash ||
		r.Answer.Took <= 0 || r.Shadow.Took <= 0 || r.Answer.Provenance.Node != s.c.Replica(1).Addr() ||
		r.Shadow.Provenance.Node != s.c.Replica(0).Addr() || r.Shadow.Provenance.Reason != "shadow" {
		t.Errorf("%+v", r)
	}

	collect(s.read(), fmt.Sprintf("select 1 / (case inet_server_port() when %s then 0 else 1 end)", s.c.Replica(0).Addr()[len("127.0.0.1:"):]))
	s.outcome(t, "error", 1)
	if r := <-s.results; r.Err == nil || r.Answer.Rows != 1 {
		t.Errorf("%+v", r)
	}

	// What is not compared.
	rows, err := s.read().Query(ctx, list, []int32{0})
	must(t, err)
	rows.Next()
	rows.Close()
	s.outcome(t, "skipped", 1)
	collect(s.Read(dbsplit.OnNode(s.c.Replica(0).Addr()), dbsplit.Shadow(s.c.Replica(0).Addr(), 1, nil)), list, []int32{0})
	s.outcome(t, "skipped", 2)
	if err := s.read().QueryRow(ctx, "select 1 / 0").Scan(nil); err == nil {
		t.Error("no error")
	}
	s.outcome(t, "skipped", 3)
	collect(s.Read(dbsplit.Shadow(s.c.Replica(0).Addr(), 0, nil)), list, []int32{0})
	s.outcome(t, "same", 4)
	if n := len(s.results); n != 0 {
		t.Errorf("%d reads were reported: %+v", n, <-s.results)
	}
}

// A node that has not replayed what the answer shows is not compared with it; one that has more differs.
func TestShadowOfAnotherState(t *testing.T) {
	s := shadowed(t)
	ctx := within(t, 60*time.Second)
	const count = "select count(*)::int from notes"
	must(t, s.c.Replica(0).PauseReplay(ctx))
	defer func() { must(t, s.c.Replica(0).ResumeReplay(context.Background())) }()
	exec(t, s.DB, "insert into notes values (21)")
	must(t, s.c.Replica(1).WaitCaughtUp(ctx))
	if n := get[int](t, ctx, s.read(), count); n != 21 {
		t.Fatalf("%d rows", n)
	}
	s.outcome(t, "skipped", 1)
	back := s.Read(dbsplit.OnNode(s.c.Replica(0).Addr()), dbsplit.Shadow(s.c.Replica(1).Addr(), 1, func(_ context.Context, r dbsplit.ShadowResult) { s.results <- r }))
	if n := get[int](t, ctx, back, count); n != 20 {
		t.Fatalf("%d rows", n)
	}
	s.outcome(t, "different", 1)
	s.outcome(t, "same", 0)
	if r := <-s.results; r.Err != nil || r.Answer.Hash == r.Shadow.Hash || r.Answer.Provenance.Node != s.c.Replica(0).Addr() {
		t.Errorf("%+v", r)
	}
}

// A node that hangs costs callers nothing: few reads wait for it, the others are not compared, and Close ends all of it.
func TestShadowThatHangs(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	reg := prometheus.NewRegistry()
	db, err := dbsplit.Open(t.Context(), nodesOf(c, database), &dbsplit.Options{Registerer: reg, ProbeTimeout: 20 * time.Second})
	must(t, err)
	s := shadowing{DB: db, c: c, reg: reg, results: make(chan dbsplit.ShadowResult, 100)}
	stop := start(t, db)
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	ctx := within(t, 60*time.Second)
	begun := time.Now()
	for range 10 {
		if err := s.read().QueryRow(ctx, hangsOn(c.Replica(0))).Scan(nil); err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(begun); d > 8*time.Second {
		t.Errorf("ten reads took %v", d)
	}
	s.outcome(t, "skipped", 6)
	await(t, db, "the node to be asked", func() bool { return db.Nodes()[1].Inflight == 4 })
	stop()
	db.Close()
	if n := counter(t, reg, "db_shadow_reads_total"); n != 10 || len(s.results) != 0 {
		t.Errorf("%v are counted, %d were reported", n, len(s.results))
	}
}

// What the one who is told does, callers do not notice.
func TestShadowWhoseReportPanics(t *testing.T) {
	s := shadowed(t)
	ctx := within(t, 60*time.Second)
	r := s.Read(dbsplit.Canary(s.c.Replica(1).Addr(), 1), dbsplit.Shadow(s.c.Replica(0).Addr(), 1, func(context.Context, dbsplit.ShadowResult) { panic("a report") }))
	get[int](t, ctx, r, "select inet_server_port()")
	await(t, s.DB, "the panic", func() bool {
		return counter(t, s.reg, "scaleaware_background_errors_total", "task", "shadow") == 1
	})
	get[int](t, ctx, r, "select 1")
	s.outcome(t, "same", 1)
	err := s.Read(dbsplit.Shadow(s.c.Replica(0).Addr(), 1, nil)).QueryRow(ctx, "create table more ()").Scan(nil)
	if !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a write: %v", err)
	}
}

// Nobody waits for what is compared, so a node that is behind does not make the monitor look more often.
func TestShadowOfALaggingNodeIsNotHurried(t *testing.T) {
	s := shadowed(t)
	ctx := within(t, 60*time.Second)
	must(t, s.c.Replica(0).PauseReplay(ctx))
	defer func() { must(t, s.c.Replica(0).ResumeReplay(context.Background())) }()
	exec(t, s.DB, "insert into notes values (21)")
	must(t, s.c.Replica(1).WaitCaughtUp(ctx))
	looks, last := 0, s.Answered(0)
	get[int](t, ctx, s.read(), "select count(*)::int from notes")
	await(t, s.DB, "it to be skipped", func() bool {
		if sent := s.Answered(0); sent != last {
			looks, last = looks+1, sent
		}
		return counter(t, s.reg, "db_shadow_reads_total", "outcome", "skipped") > 0
	})
	if looks > 15 { // of one second, in which there are five anyway
		t.Errorf("the primary was looked at %d times", looks)
	}
}
