package dbsplit_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// port names the server that answers, as nodes are named.
const port = "select '127.0.0.1:' || inet_server_port()"

func TestOnNode(t *testing.T) {
	db, c, _ := settled(t, nil)
	ctx := within(t, 20*time.Second)
	for _, s := range c.Servers() {
		for range 5 {
			if got := get[string](t, ctx, db.Read(dbsplit.OnNode(s.Addr())), port); got != s.Addr() {
				t.Errorf("a read for %s was answered by %s", s.Addr(), got)
			}
		}
	}
	if err := db.Read(dbsplit.OnNode("db9:5432")).QueryRow(ctx, "select 1").Scan(nil); !errors.Is(err, dbsplit.ErrNoNode) || !strings.Contains(err.Error(), "db9:5432") {
		t.Errorf("a node that is not there: %v", err)
	}
	notes(t, db)
	pause(t, c)
	session, _ := scaleaware.WithWatermark(ctx)
	exec(t, watched{db, session}, "insert into notes values (1)")
	err := db.Read(dbsplit.OnNode(c.Replica(0).Addr())).QueryRow(session, "select 1").Scan(nil)
	if !errors.Is(err, dbsplit.ErrNoNode) {
		t.Errorf("a node that lacks the caller's write: %v", err)
	}
}

func TestCanary(t *testing.T) {
	db, c, _ := settled(t, nil)
	ctx := within(t, 20*time.Second)
	canary := c.Replica(1).Addr()
	for share, want := range map[float64]string{0: c.Replica(0).Addr(), 1: canary} {
		r := db.Read(dbsplit.Canary(canary, share))
		for range 20 {
			if got := get[string](t, ctx, r, port); got != want {
				t.Fatalf("with a share of %v %s answered", share, got)
			}
		}
	}
	must(t, c.Replica(1).Stop(ctx))
	defer func() { must(t, c.Replica(1).Start(context.Background())) }()
	await(t, db, "the canary to be down", func() bool { return !db.Nodes()[2].Up })
	if got := get[string](t, ctx, db.Read(dbsplit.Canary(canary, 1)), port); got != c.Replica(0).Addr() {
		t.Errorf("without its canary the read was answered by %s", got)
	}
}

// A share between none and all is kept by chance: six standard deviations are left to it.
func TestCanaryShare(t *testing.T) {
	t.Parallel()
	db, c, _ := settled(t, &dbsplit.Options{MaxStaleness: time.Hour, ProbeTimeout: 20 * time.Second})
	ctx := within(t, 60*time.Second)
	canary := c.Replica(1).Addr()
	for _, share := range []float64{0.1, 0.25, 0.75} {
		const reads = 600
		n := 0
		r := db.Read(dbsplit.Canary(canary, share))
		for range reads {
			if get[string](t, ctx, r, port) == canary {
				n++
			}
		}
		want, slack := share*reads, 6*math.Sqrt(reads*share*(1-share))
		if math.Abs(float64(n)-want) > slack {
			t.Errorf("with a share of %v the canary answered %d of %d reads, want %.0f or %.0f more or less", share, n, reads, want, slack)
		}
	}
}

func TestFallback(t *testing.T) {
	var told []dbsplit.Provenance
	db, c, _ := settled(t, &dbsplit.Options{MaxStaleness: 300 * time.Millisecond, PrimaryReadWait: 20 * time.Second, ProbeTimeout: 20 * time.Second})
	notes(t, db)
	pause(t, c)
	await(t, db, "stale replicas", func() bool { // the log must move on for a replica to become stale
		exec(t, db, "insert into notes values (1)")
		for _, n := range db.Nodes()[1:] {
			if n.Staleness < 400*time.Millisecond {
				return false
			}
		}
		return true
	})
	for name, test := range map[string]struct {
		fallback dbsplit.Fallback
		opts     []dbsplit.ReadOption
		want     string // empty: ErrNoNode
	}{
		"the default":         {fallback: dbsplit.FallbackPrimaryThenStale, want: "primary"},
		"primary":             {fallback: dbsplit.FallbackPrimary, want: "primary"},
		"stale":               {fallback: dbsplit.FallbackStale, want: "replica"},
		"stale, with a bound": {fallback: dbsplit.FallbackStale, opts: []dbsplit.ReadOption{dbsplit.MaxStaleness(time.Millisecond)}},
		"none":                {fallback: dbsplit.FallbackNone},
		"none, wide bound":    {fallback: dbsplit.FallbackNone, opts: []dbsplit.ReadOption{dbsplit.MaxStaleness(time.Hour)}, want: "replica"},
	} {
		told = nil
		r := db.Read(append(test.opts, dbsplit.FallBack(test.fallback), dbsplit.OnRoute(func(p dbsplit.Provenance) { told = append(told, p) }))...)
		ctx := within(t, 20*time.Second)
		if test.want == "" {
			if err := r.QueryRow(ctx, "select 1").Scan(nil); !errors.Is(err, dbsplit.ErrNoNode) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := served(t, ctx, r); got != test.want {
			t.Errorf("%s: served by the %s", name, got)
		}
		if len(told) != 1 || told[0].Role != test.want || told[0].Stale != (test.want == "replica") {
			t.Errorf("%s: the provenance is %+v", name, told)
		}
	}
}

// Reads that no replica can serve take from the primary what is theirs; more of them get a staler replica at once.
func TestPrimaryIsShielded(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, c, _ := settled(t, &dbsplit.Options{
		MaxStaleness: 300 * time.Millisecond, PrimaryReadConns: 1, PrimaryReadWait: 50 * time.Millisecond, ProbeTimeout: 20 * time.Second, Registerer: reg,
	})
	notes(t, db)
	pause(t, c)
	await(t, db, "stale replicas", func() bool {
		exec(t, db, "insert into notes values (1)")
		n := db.Nodes()
		return n[1].Staleness > 400*time.Millisecond && n[2].Staleness > 400*time.Millisecond
	})
	ctx := within(t, 20*time.Second)
	// It holds the only connection, for which it waits longer: the gauges take it from time to time.
	tx, err := db.Read(dbsplit.FallBack(dbsplit.FallbackPrimary)).Begin(ctx)
	must(t, err)
	if s := served(t, ctx, tx); s != "primary" {
		t.Fatalf("the first read was served by the %s", s)
	}
	if s := served(t, ctx, db.Read()); s != "replica" {
		t.Errorf("with the share used up served by the %s", s)
	}
	if n := counter(t, reg, "db_reads_total", "reason", "primary-busy"); n != 1 {
		t.Errorf("%v reads are counted as primary-busy", n)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := db.Read(dbsplit.FallBack(dbsplit.FallbackPrimary)).QueryRow(short, "select 1").Scan(nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a read that may go to the primary only: %v", err)
	}
	must(t, tx.Rollback(ctx))
	await(t, db, "the share to be free again", func() bool { return served(t, ctx, db.Read()) == "primary" })
	for _, n := range db.Nodes() {
		if n.Inflight != 0 {
			t.Errorf("%s counts %d reads under way", n.Name, n.Inflight)
		}
	}
}

// A read with RequireFresh sees what somebody else has written, of whom it has no token.
func TestRequireFresh(t *testing.T) {
	db, c, _ := settled(t, &dbsplit.Options{WaitForReplica: 10 * time.Millisecond})
	notes(t, db)
	ctx := within(t, 20*time.Second)
	r := db.Read(dbsplit.RequireFresh())
	const count = "select count(*)::int from notes"
	resume := pause(t, c)
	exec(t, db, "insert into notes values (1)")
	if n := get[int](t, ctx, db.Read(), count); n != 0 {
		t.Fatalf("the paused replica has %d rows", n)
	}
	if n := get[int](t, ctx, r, count); n != 1 {
		t.Errorf("RequireFresh saw %d rows, want 1", n)
	}
	resume()
	await(t, db, "a replica for it", func() bool { return served(t, ctx, r) == "replica" })
}

// traced is a tracer that is told of reads.
type traced struct {
	pgx.QueryTracer
	reads chan dbsplit.Provenance
}

func (traced) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (traced) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (tr traced) TraceRead(_ context.Context, p dbsplit.Provenance)            { tr.reads <- p }

func TestProvenance(t *testing.T) {
	tr := traced{reads: make(chan dbsplit.Provenance, 10)}
	db, c, _ := settled(t, &dbsplit.Options{Tracer: tr, WaitForReplica: 10 * time.Second})
	notes(t, db)
	ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
	exec(t, watched{db, ctx}, "insert into notes values (1)")
	from := get[string](t, ctx, db.Read(), port)
	p := <-tr.reads
	if p.Node != from || p.Role != "replica" || p.Reason != "replica" || !p.Token || !p.Bounded || p.Staleness > 10*time.Second || p.Stale || p.Retry {
		t.Errorf("%+v, served by %s", p, from)
	}
	get[int](t, ctx, db.Read(dbsplit.PreferPrimary()), "select 1")
	if p := <-tr.reads; p.Node != c.Primary().Addr() || p.Role != "primary" || p.Reason != "asked" || !p.Bounded || p.Staleness != 0 {
		t.Errorf("on the primary: %+v", p)
	}
}

// A commit with RemoteApply is on the synchronous standby when it returns.
func TestRemoteApply(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1, Synchronous: 1})
	must(t, err)
	defer c.Close()
	db := open(t, nodesOf(c, "postgres"), nil)
	exec(t, db, "create table notes (n int)")
	for i := range 50 {
		must(t, db.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into notes values ($1)", i)
			return err
		}, dbsplit.RemoteApply()))
		conn, err := c.Replica(0).Connect(ctx, "postgres")
		must(t, err)
		if n := get[int](t, ctx, conn, "select count(*)::int from notes"); n != i+1 {
			t.Errorf("after commit %d the standby has %d rows", i+1, n)
		}
		must(t, conn.Close(ctx))
	}
	conn, err := c.Primary().Connect(ctx, "postgres")
	must(t, err)
	defer conn.Close(ctx)
	must(t, c.Replica(0).PauseReplay(ctx))
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	err = db.InTx(short, func(tx pgx.Tx) error {
		_, err := tx.Exec(short, "insert into notes values (99)")
		return err
	}, dbsplit.RemoteApply())
	if !errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a commit that waits for a paused standby longer than its context: %v", err)
	}
	must(t, c.Replica(0).ResumeReplay(ctx))
}

// The order of a handle's options does not matter.
func TestPreferPrimaryWithABound(t *testing.T) {
	ctx := within(t, 20*time.Second)
	db, _, _ := settled(t, nil)
	bound, primary := dbsplit.MaxStaleness(5*time.Second), dbsplit.PreferPrimary()
	for name, r := range map[string]*dbsplit.Reader{
		"the bound first": db.Read(bound, primary), "the bound last": db.Read(primary, bound),
		"no staleness": db.Read(dbsplit.MaxStaleness(0)), "as in another handle": db.Read(bound, dbsplit.MaxStaleness(-1)),
	} {
		if at := served(t, ctx, r); at != "primary" {
			t.Errorf("%s: served by the %s", name, at)
		}
	}
	if at := served(t, ctx, db.Read(dbsplit.MaxStaleness(0), bound)); at != "replica" {
		t.Errorf("the later bound does not count: served by the %s", at)
	}
}

// Who is told of a read panics, or ends its goroutine, before the read is sent: nothing is held afterwards.
func TestPanicInOnRoute(t *testing.T) {
	ctx := within(t, 30*time.Second)
	c := shared.Get(t)
	db := open(t, nodesOf(c, c.Database(t)), &dbsplit.Options{PrimaryReadConns: 1})
	for name, f := range map[string]func(dbsplit.Provenance){
		"panic": func(dbsplit.Provenance) { panic("a caller's") }, "Goexit": func(dbsplit.Provenance) { runtime.Goexit() },
	} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer func() { _ = recover() }()
			_ = db.Read(dbsplit.OnRoute(f)).QueryRow(ctx, "select 1").Scan(new(int))
		}()
		<-ended
		if n := db.Nodes()[0].Inflight; n != 0 {
			t.Fatalf("after %s %d reads are under way", name, n) // and Close waits for ever
		}
		if at := served(t, ctx, db.Read()); at != "primary" {
			t.Errorf("after %s served by %q", name, at)
		}
	}
}
