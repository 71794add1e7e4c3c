package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A lost write is told of by the read whose answer counts, or by the next one: what the second node would have told may be
// heard by nobody.
func TestHedgeAndLostWrite(t *testing.T) {
	t.Parallel()
	if !hedgeOverAPromotion(t, 8*time.Second) && !hedgeOverAPromotion(t, 16*time.Second) {
		t.Fatal("both promotions took longer than the read waited for its first node: this test tests nothing")
	}
}

// hedgeOverAPromotion reports whether the promotion came before the second node was looked for. Or else it has shown nothing.
func hedgeOverAPromotion(t *testing.T, delay time.Duration) bool {
	t.Helper()
	ctx := within(t, 100*time.Second+delay)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	reg := prometheus.NewRegistry()
	db := run(t, nodesOf(c, "postgres"), &dbsplit.Options{Registerer: reg})
	await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
	for range 20 {
		get[int](t, ctx, db.Read(dbsplit.Hedge(time.Hour)), "select 1")
	}
	exec(t, db, "create table notes (n int)")
	must(t, c.Replica(0).WaitCaughtUp(ctx))
	must(t, c.Replica(0).CutStream(ctx))
	lost, w := scaleaware.WithWatermark(ctx)
	for i := range 200 { // so that the position lies well beyond the fork
		exec(t, watched{db, lost}, "insert into notes values ($1)", i)
	}
	_, err = w.Written(lost)
	must(t, err)
	must(t, c.Replica(1).WaitCaughtUp(ctx))
	holder, err := c.Replica(1).Connect(ctx, "postgres")
	must(t, err)
	defer holder.Close(context.Background())
	get[string](t, ctx, holder, "select pg_advisory_lock(7)::text")

	begun := time.Now()
	result := make(chan error, 1)
	go func() {
		result <- db.Read(dbsplit.Canary(c.Replica(1).Addr(), 1), dbsplit.Hedge(delay)).QueryRow(lost, "select pg_advisory_lock_shared(7)::text").Scan(nil)
	}()
	await(t, db, "the read", func() bool {
		return get[bool](t, ctx, holder, "select exists (select from pg_stat_activity where wait_event = 'advisory')")
	})
	c.Primary().Kill()
	must(t, c.Replica(0).Promote(ctx))
	await(t, db, "writes", func() bool { _, err := db.Exec(ctx, "insert into notes values (1000)"); return err == nil })
	exec(t, db, "insert into notes select generate_series(1000, 50000)")
	if since := time.Since(begun); since > delay {
		t.Logf("the promotion took %v, longer than %v", since, delay)
		get[bool](t, ctx, holder, "select pg_advisory_unlock(7)")
		<-result
		return false
	}
	await(t, db, "the second node", func() bool {
		return time.Since(begun) > delay+time.Second || counter(t, reg, "db_tokens_total", "outcome", "lost") > 0
	})
	get[bool](t, ctx, holder, "select pg_advisory_unlock(7)")
	told := 0
	for i, err := range []error{<-result, db.Read().QueryRow(lost, "select 1").Scan(nil)} {
		if errors.Is(err, dbsplit.ErrLostWrite) {
			told++
		} else if err != nil {
			t.Errorf("read %d: %v", i, err)
		}
	}
	if told != 1 {
		t.Errorf("the lost write was told of %d times", told)
	}
	if counter(t, reg, "db_hedged_reads_total", "outcome", "no-node") != 1 {
		t.Error("no second node was looked for: this test tests nothing")
	}
	return true
}

const conflicting = `create function conflicting() returns int language plpgsql as
$$begin if pg_is_in_recovery() then perform pg_sleep(0.5); raise exception using errcode = '40001'; end if; return 7; end$$`

// When both replicas cancel a read for their replay, the primary is asked, as without Hedge.
func TestHedgeAndConflicts(t *testing.T) {
	traced := &sends{mark: "conflicting()"}
	h := hedged(t, dbsplit.Options{Tracer: traced})
	ctx := within(t, 60*time.Second)
	exec(t, h.DB, conflicting)
	for _, r := range h.c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	var p dbsplit.Provenance
	before := traced.n.Load()
	if n := get[int](t, ctx, h.first(time.Millisecond, &p), "select conflicting()"); n != 7 || p.Role != "primary" {
		t.Errorf("%d from %+v", n, p)
	}
	if n := traced.n.Load() - before; n != 3 {
		t.Errorf("it was sent %d times", n)
	}
	err := h.first(time.Millisecond, &p, dbsplit.FallBack(dbsplit.FallbackNone)).QueryRow(ctx, "select conflicting()").Scan(nil)
	if !pgcluster.Conflicted(err) {
		t.Errorf("without the primary: %v", err)
	}
	if failed, others := h.outcomes(t, "failed"), h.outcomes(t, "lost")+h.outcomes(t, "won"); failed != 2 || others != 0 {
		t.Errorf("%v are counted as failed, %v otherwise", failed, others)
	}
	h.quiet(t)
}

// refuses makes serializable the default of a replica, which the one session that there is there does not know.
func refuses(t *testing.T, h hedging, replica int) {
	t.Helper()
	ctx, s := within(t, 60*time.Second), h.c.Replica(replica)
	on := h.Read(dbsplit.OnNode(h.Nodes()[1+replica].Name))
	get[int](t, ctx, on, "select 1")
	must(t, s.Exec(ctx, "alter system set default_transaction_isolation = 'serializable'", "select pg_reload_conf()"))
	t.Cleanup(func() {
		must(t, s.Exec(context.Background(), "set default_transaction_isolation = 'read committed'", "alter system reset default_transaction_isolation", "select pg_reload_conf()"))
	})
	await(t, h.DB, "the refusal", func() bool {
		err := on.QueryRow(ctx, "select 1").Scan(nil)
		return err != nil && strings.Contains(err.Error(), "0A000")
	})
}

// When both refuse to begin a serializable transaction, as sessions do which are older than that default, the primary is asked, too.
func TestHedgeAndSerializable(t *testing.T) {
	traced := &sends{mark: "-- strict"}
	h := hedged(t, dbsplit.Options{Tracer: traced, ReplicaConns: 1})
	ctx := within(t, 60*time.Second)
	const sql = "select 7 -- strict"
	for i := range h.c.Servers()[1:] {
		refuses(t, h, i)
	}
	h.slow.Delay(faultconn.ToClient, 300*time.Millisecond)
	defer h.slow.Heal()
	var p dbsplit.Provenance
	before := traced.n.Load()
	if n := get[int](t, ctx, h.first(time.Millisecond, &p), sql); n != 7 || p.Role != "primary" {
		t.Errorf("%d from %+v", n, p)
	}
	if n := traced.n.Load() - before; n != 3 {
		t.Errorf("it was sent %d times", n)
	}
	h.quiet(t)
}

// A second node that has no connection to spare was not asked, whether it was given up or is waited for when the first one answers.
func TestHedgeWithoutAConnection(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second} {
		h := hedged(t, dbsplit.Options{ReplicaConns: 1, PoolWait: wait, Fallback: dbsplit.FallbackNone})
		ctx := within(t, 60*time.Second)
		tx, err := h.Read(dbsplit.OnNode(h.c.Replica(1).Addr())).Begin(ctx)
		must(t, err)
		var p dbsplit.Provenance
		get[string](t, ctx, h.first(time.Millisecond, &p), "select pg_sleep($1)::text", 0.5+2*wait.Seconds())
		must(t, tx.Rollback(ctx))
		h.quiet(t)
		if none, lost := h.outcomes(t, "no-node"), h.outcomes(t, "lost"); none != 1 || lost != 0 {
			t.Errorf("PoolWait %v: %v are counted as no-node, %v as lost", wait, none, lost)
		}
	}
}

// What PostgreSQL says of the statement is an answer, and a caller who has gone waits for none: neither is a failure of both nodes.
func TestHedgeCountsFailures(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	var p dbsplit.Provenance
	counted := func(what string, lost, failed float64) {
		t.Helper()
		h.quiet(t)
		if l, f, w := h.outcomes(t, "lost"), h.outcomes(t, "failed"), h.outcomes(t, "won"); l != lost || f != failed || w != 0 {
			t.Errorf("%s: %v are counted as lost, %v as failed, %v as won", what, l, f, w)
		}
	}
	const divides = "select 1 / (case inet_server_port() when %s then length(pg_sleep(2)::text) else 1 + length(pg_sleep(100)::text) end)"
	_, port, _ := strings.Cut(h.c.Replica(0).Addr(), ":")
	if err := h.first(time.Millisecond, &p).QueryRow(ctx, fmt.Sprintf(divides, port)).Scan(nil); err == nil || !strings.Contains(err.Error(), "22012") {
		t.Error(err)
	}
	counted("a division by zero", 1, 0)

	gone, cancel := context.WithCancel(ctx)
	result := make(chan error, 1)
	go func() {
		result <- h.first(time.Millisecond, &p).QueryRow(gone, "select pg_sleep(100)::text -- hopeless").Scan(nil)
	}()
	for _, s := range h.c.Servers()[1:] {
		h.active(t, s, "-- hopeless")
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	counted("a caller who has gone", 1, 0)
}

// panicking panics at the begin or the end of marked statements on the server of a port.
type panicking struct {
	mark  string
	begin bool
	port  atomic.Uint32
}

type panickingKey struct{}

// on makes it panic on the server of addr.
func (p *panicking) on(t *testing.T, addr string) {
	t.Helper()
	_, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	must(t, err)
	p.port.Store(uint32(n))
}

func (p *panicking) here(conn *pgx.Conn) bool { return uint32(conn.Config().Port) == p.port.Load() }

func (p *panicking) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if !strings.Contains(data.SQL, p.mark) {
		return ctx
	}
	if p.begin && p.here(conn) {
		panic("a tracer")
	}
	return context.WithValue(ctx, panickingKey{}, true)
}

func (p *panicking) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryEndData) {
	if ctx.Value(panickingKey{}) != nil && p.here(conn) {
		panic("a tracer")
	}
}

// A hook that panics for the node that lost does not end the process, and its connection is given back.
func TestHedgeWhoseLoserPanics(t *testing.T) {
	traced := &panicking{mark: "-- panics"}
	h := hedged(t, dbsplit.Options{Tracer: traced, ReplicaConns: 1, ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	const sql = "select generate_series(1, 3) -- panics"
	counted := func(want float64) {
		t.Helper()
		h.quiet(t)
		if n := counter(t, h.reg, "scaleaware_background_errors_total", "task", "hedge"); n != want {
			t.Errorf("%v panics are counted, want %v", n, want)
		}
		for _, n := range h.Nodes()[1:] {
			get[int](t, ctx, h.Read(dbsplit.OnNode(n.Name)), "select 1")
		}
	}
	get[int](t, ctx, h.Read(dbsplit.OnNode(h.slow.Addr())), sql) // prepares it
	h.slow.Delay(faultconn.ToClient, 300*time.Millisecond)
	traced.on(t, h.slow.Addr())
	var p dbsplit.Provenance
	get[int](t, ctx, h.first(50*time.Millisecond, &p), sql)
	if p.Reason != "hedge" {
		t.Errorf("%+v", p)
	}
	counted(1)
	h.slow.Heal()

	// Its statement is cancelled before the first row.
	if err := h.first(50*time.Millisecond, &p).QueryRow(ctx, hangsOn(h.c.Replica(0))+" -- panics").Scan(nil); err != nil || p.Reason != "hedge" {
		t.Errorf("%v, %+v", err, p)
	}
	counted(2)

	// The second node's is not even sent.
	traced.begin = true
	traced.on(t, h.c.Replica(1).Addr())
	if err := h.first(time.Millisecond, &p).QueryRow(ctx, "select pg_sleep(2)::text -- panics").Scan(nil); err != nil || p.Node != h.slow.Addr() {
		t.Errorf("%v, %+v", err, p)
	}
	counted(3)
}

// What one is learned from is answers, when they are there: not the time after which a second node was asked.
func TestHedgeLearnsFromAnswers(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	for range 60 {
		get[string](t, ctx, h.Read(dbsplit.Hedge(time.Millisecond)), "select pg_sleep(0.03)::text")
	}
	if usual := h.Usual(); usual < 25*time.Millisecond || usual > 5*time.Second { // leaves room for a busy machine
		t.Errorf("95 of 100 reads take %v", usual)
	}
	for range 30 {
		_ = h.Read(dbsplit.Hedge(time.Millisecond)).QueryRow(ctx, "select 1 / 0").Scan(nil)
	}
	if usual := h.Usual(); usual < 25*time.Millisecond {
		t.Errorf("after errors 95 of 100 reads take %v", usual)
	}
	h.quiet(t)
}

// A caller whose time is over while the rows come is told of that, and not that he has gone.
func TestHedgeTellsOfADeadlineAmongTheRows(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	const sql = "select repeat('x', 2000), pg_sleep(case n when 50 then 100 else 0 end)::text from generate_series(1, 60) n"
	for name, r := range map[string]*dbsplit.Reader{"plain": h.Read(), "hedged": h.Read(dbsplit.Hedge(time.Hour))} {
		ctx := within(t, 2*time.Second)
		rows, err := r.Query(ctx, sql)
		must(t, err)
		n := 0
		for rows.Next() {
			n++
		}
		if err := rows.Err(); n == 0 || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			t.Errorf("%s: after %d rows %v", name, n, err)
		}
		rows.Close()
		if err := rows.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: closed with %v", name, err)
		}
	}
	h.quiet(t)
}

// A read that was over the budget when it was late is counted as that only if its caller was there to the end.
func TestHedgeCountsNoCallerWhoHasGone(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	var p dbsplit.Provenance
	await(t, h.DB, "the end of the budget", func() bool {
		get[string](t, ctx, h.first(time.Millisecond, &p), "select pg_sleep(0.05)::text")
		return h.outcomes(t, "over-budget") == 1
	})
	gone, cancel := context.WithCancel(ctx)
	result := make(chan error, 1)
	go func() {
		result <- h.first(time.Nanosecond, &p).QueryRow(gone, "select pg_sleep(100)::text -- late").Scan(nil)
	}()
	h.active(t, h.c.Replica(0), "-- late")
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := h.outcomes(t, "over-budget"); n != 1 {
		t.Errorf("%v are counted as over the budget, want the one that was answered", n)
	}
	h.quiet(t)
}

// A replica that refuses what is serializable by default, and another one that cancels the read for its replay, leave the primary.
func TestHedgeAfterARefusalAndAConflict(t *testing.T) {
	h := hedged(t, dbsplit.Options{ReplicaConns: 1})
	ctx := within(t, 60*time.Second)
	exec(t, h.DB, conflicting)
	for _, r := range h.c.Servers()[1:] {
		must(t, r.WaitCaughtUp(ctx))
	}
	refuses(t, h, 0)
	h.slow.Delay(faultconn.ToClient, 300*time.Millisecond) // so that the second node is asked before it refuses
	defer h.slow.Heal()
	var p dbsplit.Provenance
	if n := get[int](t, ctx, h.first(time.Millisecond, &p), "select conflicting()"); n != 7 || p.Role != "primary" {
		t.Errorf("%d from %+v", n, p)
	}
	h.quiet(t)
}
