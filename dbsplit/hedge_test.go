package dbsplit_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// hedging is a DB whose first replica can be made slow, with as many reads behind it as let some be sent twice.
type hedging struct {
	*dbsplit.DB
	c        *pgcluster.Cluster
	database string
	slow     *faultconn.Proxy
	reg      *prometheus.Registry
}

func hedged(t *testing.T, opts dbsplit.Options) hedging {
	t.Helper()
	h := hedging{c: shared.Get(t), reg: prometheus.NewRegistry()}
	h.database = h.c.Database(t)
	var through string
	h.slow, through = proxied(t, h.c.Replica(0), h.database)
	opts.Registerer = h.reg
	h.DB = run(t, dbsplit.Nodes{Primary: h.c.Primary().URL(h.database), Replicas: []string{through, h.c.Replica(1).URL(h.database)}}, &opts)
	await(t, h.DB, "fresh replicas", func() bool { return fresh(h.DB) == 2 })
	ctx := within(t, 60*time.Second)
	for range 100 { // five second sends
		get[int](t, ctx, h.Read(dbsplit.Hedge(time.Hour)), "select 1")
	}
	return h
}

// first is a read that goes to the first replica, and where its answer came from.
func (h hedging) first(delay time.Duration, p *dbsplit.Provenance, opts ...dbsplit.ReadOption) *dbsplit.Reader {
	return h.Read(append(opts, dbsplit.Canary(h.slow.Addr(), 1), dbsplit.Hedge(delay), dbsplit.OnRoute(func(told dbsplit.Provenance) { *p = told }))...)
}

func (h hedging) outcomes(t *testing.T, outcome string) float64 {
	return counter(t, h.reg, "db_hedged_reads_total", "outcome", outcome)
}

func (h hedging) quiet(t *testing.T) {
	t.Helper()
	await(t, h.DB, "nothing under way", func() bool {
		for _, n := range h.Nodes() {
			if n.Inflight != 0 {
				return false
			}
		}
		return true
	})
}

// sessions are those of reads on a server, by what never comes twice.
func (h hedging) sessions(t *testing.T, s *pgcluster.Server) []string {
	t.Helper()
	conn, err := s.Connect(t.Context(), h.database)
	must(t, err)
	defer conn.Close(context.Background())
	rows, _ := conn.Query(t.Context(), "select pid::text || ' ' || backend_start::text from pg_stat_activity where application_name = 'db reads' and datname = current_database()")
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return all
}

// active waits for a read under way on a server, and returns its process.
func (h hedging) active(t *testing.T, s *pgcluster.Server, mark string) (pid int) {
	t.Helper()
	conn, err := s.Connect(t.Context(), h.database)
	must(t, err)
	defer conn.Close(context.Background())
	await(t, h.DB, "a read under way on "+s.Name(), func() bool {
		err := conn.QueryRow(t.Context(), "select pid from pg_stat_activity where query like $1 and state = 'active' and application_name = 'db reads'", "%"+mark+"%").Scan(&pid)
		if errors.Is(err, pgx.ErrNoRows) {
			return false
		}
		must(t, err)
		return true
	})
	return pid
}

func hangsOn(s *pgcluster.Server) string {
	_, port, _ := strings.Cut(s.Addr(), ":")
	return fmt.Sprintf("select pg_sleep(case inet_server_port() when %s then 100 else 0 end)::text -- hangs", port)
}

func percentile(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*95/100]
}

// One read of fourteen meets a replica that answers 200 ms late: with Hedge the 95th percentile does not show it, and the replica
// keeps its connections.
func TestHedgeCutsTheTail(t *testing.T) {
	const late, reads = 200 * time.Millisecond, 280
	h := hedged(t, dbsplit.Options{MaxConns: 4, ProbeTimeout: 20 * time.Second})
	ctx := within(t, 120*time.Second)
	measure := func(hedge ...dbsplit.ReadOption) (p95 time.Duration, elsewhere int) {
		took := make([]time.Duration, 0, reads)
		for i := range reads {
			node, slow := h.c.Replica(1).Addr(), i%14 == 0
			if slow {
				node = h.slow.Addr()
			}
			var p dbsplit.Provenance
			r := h.Read(append(hedge, dbsplit.Canary(node, 1), dbsplit.OnRoute(func(told dbsplit.Provenance) { p = told }))...)
			begun := time.Now()
			if n := get[int](t, ctx, r, "select $1::int", i); n != i {
				t.Fatalf("read %d: %d", i, n)
			}
			took = append(took, time.Since(begun))
			if slow && p.Reason == "hedge" {
				elsewhere++
				if p.Node != h.c.Replica(1).Addr() || p.Role != "replica" || p.Retry {
					t.Errorf("the answer that counts: %+v", p)
				}
			}
		}
		return percentile(took), elsewhere
	}
	h.slow.Delay(faultconn.ToClient, late)
	without, _ := measure()
	before := h.sessions(t, h.c.Replica(0))
	with, elsewhere := measure(dbsplit.Hedge(20 * time.Millisecond))
	h.quiet(t)
	after := h.sessions(t, h.c.Replica(0))
	t.Logf("95 of 100 reads within %v, with Hedge within %v; %d were answered elsewhere", without, with, elsewhere)
	if without < late || with >= late {
		t.Errorf("95 of 100 reads within %v, with Hedge within %v", without, with)
	}
	if n := h.outcomes(t, "won"); int(n) < elsewhere || elsewhere < 10 {
		t.Errorf("%d were answered elsewhere, %v are counted as won", elsewhere, n)
	}
	for _, s := range before {
		if !slices.Contains(after, s) {
			t.Errorf("session %s of the slow replica is gone", s)
		}
	}
	if len(after) > 4 {
		t.Errorf("the slow replica has %d sessions", len(after))
	}
	for _, n := range h.Nodes() {
		if !n.Up || n.Advice != "" {
			t.Errorf("%+v", n)
		}
	}
}

// A statement that hangs on one replica is cancelled there, and its session is used again.
func TestHedgeCancelsTheLoser(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	hangs := hangsOn(h.c.Replica(0))
	for name, read := range map[string]func(r *dbsplit.Reader) error{
		"QueryRow": func(r *dbsplit.Reader) error { return r.QueryRow(ctx, hangs).Scan(nil) },
		"Query": func(r *dbsplit.Reader) error {
			rows, err := r.Query(ctx, hangs)
			if err != nil {
				return err
			}
			n := 0
			for rows.Next() {
				n++
			}
			if n != 1 {
				t.Errorf("%d rows", n)
			}
			return rows.Err()
		},
	} {
		before := h.sessions(t, h.c.Replica(0))
		var p dbsplit.Provenance
		begun := time.Now()
		if err := read(h.first(50*time.Millisecond, &p)); err != nil || p.Reason != "hedge" {
			t.Errorf("%s: %v, %+v", name, err, p)
		}
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("%s took %v", name, d)
		}
		h.quiet(t)
		after := h.sessions(t, h.c.Replica(0))
		for _, s := range before {
			if !slices.Contains(after, s) {
				t.Errorf("%s: session %s is gone", name, s)
			}
		}
		for range 20 { // no cancelling reaches what comes next there
			get[int](t, ctx, h.Read(dbsplit.OnNode(h.slow.Addr())), "select 1")
		}
	}
	if n := h.outcomes(t, "won"); n != 2 {
		t.Errorf("%v are counted as won", n)
	}
	if got := h.Nodes()[1]; !got.Up {
		t.Errorf("the slow replica: %+v", got)
	}
}

// When all nodes are slow, one of twenty reads is sent twice, and no more.
func TestHedgeBudget(t *testing.T) {
	const reads = 600
	traced := &sends{mark: "-- all slow"}
	h := hedged(t, dbsplit.Options{Tracer: traced, MaxConns: 8, ProbeTimeout: 20 * time.Second})
	ctx := within(t, 120*time.Second)
	before := traced.n.Load()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range reads / 4 {
				if err := h.Read(dbsplit.Hedge(time.Millisecond), dbsplit.FallBack(dbsplit.FallbackNone)).QueryRow(ctx, "select pg_sleep(0.01)::text -- all slow").Scan(nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	h.quiet(t)
	twice := traced.n.Load() - before - reads
	t.Logf("%d of %d reads were sent twice", twice, reads)
	if most := int64(reads+100) / 20; twice > most || twice < most/2 { // 100 came before
		t.Errorf("%d of %d reads were sent twice", twice, reads)
	}
	if n := h.outcomes(t, "over-budget"); n == 0 {
		t.Error("none was counted as over the budget")
	}
	if n := h.outcomes(t, "won") + h.outcomes(t, "lost"); n < float64(twice) {
		t.Errorf("%v counted, %d sent twice", n, twice)
	}
}

// By itself, the time after which a second node is asked is what 95 of 100 reads take.
func TestHedgeByPercentile(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	h.slow.Delay(faultconn.ToClient, time.Second)
	var p dbsplit.Provenance
	begun := time.Now()
	get[int](t, ctx, h.first(0, &p), "select 1")
	if p.Reason != "hedge" || p.Node != h.c.Replica(1).Addr() || time.Since(begun) >= time.Second {
		t.Errorf("after %v: %+v", time.Since(begun), p)
	}
	h.slow.Heal()
	h.quiet(t)
}

// Only one answer is scanned, and the arguments are the caller's again when it is there.
func TestHedgeScansOneAnswer(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	h.slow.Delay(faultconn.ToClient, 100*time.Millisecond)
	for i := range 5 { // each is prepared first, with a round trip before the arguments are encoded
		var p dbsplit.Provenance
		var got counted
		arg := []byte("as it was")
		must(t, h.first(time.Millisecond, &p).QueryRow(ctx, fmt.Sprintf("select $1::bytea, %d", i), arg).Scan(&got, nil))
		copy(arg, "different") // what lost may not have encoded its own yet
		if got.value != "as it was" || got.scans != 1 || p.Reason != "hedge" {
			t.Errorf("%+v, %+v", got, p)
		}
	}
	h.slow.Heal()
	h.quiet(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = h.Read(dbsplit.Hedge(time.Hour)).QueryRow(ctx, "select 1").Scan(panics{})
	}()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = h.Read(dbsplit.Hedge(time.Hour)).QueryRow(ctx, "select $1::text", panics{}).Scan(nil)
	}()
	h.quiet(t)
}

type counted struct {
	value string
	scans int
}

func (c *counted) Scan(src any) error {
	b, _ := src.([]byte)
	c.value = string(b)
	c.scans++
	return nil
}

type panics struct{}

func (panics) Scan(any) error               { panic("a Scanner") }
func (panics) Value() (driver.Value, error) { panic("a Valuer") }

// A caller that has enough of it ends both.
func TestHedgeEndsWithItsCaller(t *testing.T) {
	h := hedged(t, dbsplit.Options{})
	for name, end := range map[string]error{"cancelled": context.Canceled, "deadline": context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if end == context.DeadlineExceeded {
			ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
		}
		result := make(chan error, 1)
		go func() {
			result <- h.Read(dbsplit.Hedge(time.Millisecond)).QueryRow(ctx, "select pg_sleep(100)::text -- hopeless").Scan(nil)
		}()
		for _, s := range h.c.Servers()[1:] {
			if end == context.Canceled {
				h.active(t, s, "-- hopeless")
			}
		}
		if end == context.Canceled {
			cancel()
		}
		if err := <-result; !errors.Is(err, end) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		h.quiet(t)
		for _, s := range h.c.Servers()[1:] {
			conn, err := s.Connect(t.Context(), h.database)
			must(t, err)
			await(t, h.DB, "the end on "+s.Name(), func() bool {
				return get[int](t, t.Context(), conn, "select count(*)::int from pg_stat_activity where query like '%-- hopeless' and state = 'active' and pid <> pg_backend_pid()") == 0
			})
			must(t, conn.Close(t.Context()))
		}
	}
}

// A first node that fails is replaced as ever; when both fail, there is one error. What PostgreSQL says of the statement is an
// answer.
func TestHedgeAndErrors(t *testing.T) {
	traced := &sends{mark: "-- fails"}
	h := hedged(t, dbsplit.Options{Tracer: traced})
	ctx := within(t, 60*time.Second)
	kill := func(s *pgcluster.Server) {
		pid := h.active(t, s, "-- fails")
		must(t, s.Exec(ctx, fmt.Sprintf("select pg_terminate_backend(%d)", pid)))
	}
	read := func(r *dbsplit.Reader, sql string) <-chan error {
		result := make(chan error, 1)
		go func() { result <- r.QueryRow(ctx, sql).Scan(nil) }()
		return result
	}
	const slow = "select pg_sleep(0.5)::text -- fails"
	var p dbsplit.Provenance
	sent := traced.n.Load()
	result := read(h.first(time.Hour, &p), slow)
	kill(h.c.Replica(0))
	if err := <-result; err != nil || !p.Retry || p.Reason != "retry" || traced.n.Load()-sent != 2 {
		t.Errorf("the first one failed: %v, %+v, sent %d times", err, p, traced.n.Load()-sent)
	}
	await(t, h.DB, "both replicas", func() bool {
		return get[string](t, ctx, h.Read(dbsplit.Canary(h.slow.Addr(), 1)), port) == h.c.Replica(0).Addr()
	})

	sent = traced.n.Load()
	result = read(h.first(time.Millisecond, &p), slow)
	h.active(t, h.c.Replica(1), "-- fails")
	kill(h.c.Replica(0))
	if err := <-result; err != nil || p.Retry || p.Reason != "hedge" || traced.n.Load()-sent != 2 {
		t.Errorf("the first of two failed: %v, %+v, sent %d times", err, p, traced.n.Load()-sent)
	}
	await(t, h.DB, "both replicas", func() bool {
		return get[string](t, ctx, h.Read(dbsplit.Canary(h.slow.Addr(), 1)), port) == h.c.Replica(0).Addr()
	})

	sent = traced.n.Load()
	result = read(h.first(time.Millisecond, &p), "select pg_sleep(100)::text -- fails")
	kill(h.c.Replica(1))
	kill(h.c.Replica(0))
	if err := <-result; err == nil || !strings.Contains(err.Error(), "57P01") || traced.n.Load()-sent != 2 {
		t.Errorf("both failed: %v, sent %d times", err, traced.n.Load()-sent)
	}
	await(t, h.DB, "both replicas", func() bool {
		return get[string](t, ctx, h.Read(dbsplit.Canary(h.slow.Addr(), 1)), port) == h.c.Replica(0).Addr()
	})

	sent = traced.n.Load()
	if err := <-read(h.first(time.Hour, &p), "select 1 / 0 -- fails"); err == nil || !strings.Contains(err.Error(), "22012") || traced.n.Load()-sent != 1 {
		t.Errorf("a division by zero: %v, sent %d times", err, traced.n.Load()-sent)
	}
	if err := <-read(h.first(time.Hour, &p), "create table fails () -- fails"); !errors.Is(err, dbsplit.ErrWriteInRead) {
		t.Errorf("a write: %v", err)
	}
	if err := h.first(time.Hour, &p).QueryRow(ctx, "select 1 where false").Scan(nil); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("no row: %v", err)
	}
	h.quiet(t)

	// Nobody else may answer, so the first one is waited for.
	only := h.first(time.Millisecond, &p, dbsplit.OnNode(h.slow.Addr()))
	if err := <-read(only, "select pg_sleep(0.1)::text"); err != nil || p.Node != h.slow.Addr() {
		t.Errorf("one node: %v, %+v", err, p)
	}
	if n := h.outcomes(t, "no-node"); n != 1 {
		t.Errorf("no-node is counted %v times", n)
	}
}

// What the node that lost has shown, nobody has seen.
func TestHedgeAndMonotonicReads(t *testing.T) {
	h := hedged(t, dbsplit.Options{MonotonicReads: true, ProbeInterval: 2 * time.Second, ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	var p dbsplit.Provenance
	caller, w := scaleaware.WithWatermark(ctx)
	h.slow.Delay(faultconn.ToClient, 300*time.Millisecond)
	get[int](t, caller, h.first(time.Millisecond, &p), "select 1")
	_, open := w.Known()
	if p.Reason != "hedge" || len(open) > 1 {
		t.Errorf("%+v, seen in %d places", p, len(open))
	}
	h.quiet(t)
	_, open = w.Known()
	if len(open) > 1 {
		t.Errorf("seen in %d places", len(open))
	}
	h.slow.Heal()
}

// The second node has what the read must see, too.
func TestHedgeReadsYourWrites(t *testing.T) {
	h := hedged(t, dbsplit.Options{ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	var p dbsplit.Provenance
	exec(t, h.DB, "create table notes (n int)")
	for _, s := range h.c.Servers()[1:] {
		must(t, s.WaitCaughtUp(ctx))
	}
	must(t, h.c.Replica(1).PauseReplay(ctx))
	defer func() { must(t, h.c.Replica(1).ResumeReplay(context.Background())) }()
	writer, _ := scaleaware.WithWatermark(ctx)
	exec(t, watched{h.DB, writer}, "insert into notes values (1)")
	must(t, h.c.Replica(0).WaitCaughtUp(ctx))
	await(t, h.DB, "a replica that has the write", func() bool { return served(t, writer, h.Read()) == "replica" })
	h.slow.Delay(faultconn.ToClient, time.Second)
	for range 2 {
		if n := get[int](t, writer, h.first(time.Millisecond, &p), "select count(*)::int from notes"); n != 1 || p.Node == h.c.Replica(1).Addr() {
			t.Errorf("%d rows by %+v", n, p)
		}
	}
	if p.Role != "primary" { // the first one's, if it has not got to know yet whether that has restarted
		t.Errorf("the second node was %+v", p)
	}
	h.slow.Heal()
	h.quiet(t)
}
