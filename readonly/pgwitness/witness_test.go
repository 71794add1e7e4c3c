package pgwitness_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pgwitness"
)

var (
	shared      = pgcluster.NewShared(&pgcluster.Options{Settings: map[string]string{"max_prepared_transactions": "10"}})
	redisServer = rediscluster.NewShared(&rediscluster.Options{Nodes: 1})
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(redisServer.Around(shared.Around(m))) }

var _ pgwitness.Database = (*dbsplit.DB)(nil)

// rig is a database with a witness, and a session of somebody else's.
type rig struct {
	t       *testing.T
	ctx     context.Context
	url     string
	witness *pgwitness.Witness
	pool    *pgxpool.Pool
}

func newRig(t *testing.T, o *pgwitness.Options) *rig {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	c := shared.Get(t)
	r := &rig{t: t, ctx: ctx, url: c.Primary().URL(c.Database(t))}
	var err error
	if r.pool, err = pgxpool.New(ctx, r.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.pool.Close)
	if r.witness, err = pgwitness.New(r.pool, o); err != nil {
		t.Fatal(err)
	}
	r.exec(r.session("setup"), "create table t (n int)")
	return r
}

// session opens a connection under an application's name.
func (r *rig) session(application string) *pgx.Conn {
	r.t.Helper()
	config, err := pgx.ParseConfig(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = application
	conn, err := pgx.ConnectConfig(r.ctx, config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (r *rig) exec(conn *pgx.Conn, statements ...string) {
	r.t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(r.ctx, sql); err != nil {
			r.t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (r *rig) mark() uint64 {
	r.t.Helper()
	_, mark, err := r.witness.Mark(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return mark
}

func (r *rig) look() readonly.Sight {
	r.t.Helper()
	sight, err := r.witness.Look(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return sight
}

func below(sight readonly.Sight, mark uint64) int {
	n := 0
	for _, t := range sight.Numbered {
		if t.Number < mark {
			n++
		}
	}
	return n
}

// The newest transaction of the cluster is not below the snapshot's xmax while it runs. It is below the mark.
func TestNewestTransactionHoldsTheFence(t *testing.T) {
	r := newRig(t, nil)
	writer := r.session("psql")
	r.exec(writer, "begin", "insert into t values (1)")
	mark := r.mark()
	sight := r.look()
	if below(sight, mark) != 1 {
		t.Fatalf("mark %d, %+v: the running transaction is not seen below the mark", mark, sight)
	}
	if got := sight.Numbered[0]; got.Application != "psql" || got.PID == 0 || got.State != "idle in transaction" || got.Ours || got.Since.IsZero() {
		t.Errorf("seen as %+v", got)
	}
	r.exec(writer, "commit")
	if sight := r.look(); below(sight, mark) != 0 || sight.Next <= mark {
		t.Fatalf("mark %d, after the commit %+v", mark, sight)
	}
	if sight.Server == "" || sight.Blind {
		t.Errorf("sight = %+v", sight)
	}
}

func TestLaterWriterIsSeenAndIsNotBelow(t *testing.T) {
	r := newRig(t, nil)
	mark := r.mark()
	writer := r.session("migration")
	r.exec(writer, "begin", "insert into t values (1)", "savepoint s", "insert into t values (2)")
	sight := r.look()
	if below(sight, mark) != 0 || !slices.ContainsFunc(sight.Numbered, func(t readonly.Transaction) bool { return t.Application == "migration" }) {
		t.Fatalf("mark %d, %+v", mark, sight)
	}
	if sight.Next <= mark+1 {
		t.Errorf("the writer is not counted: next %d after the mark %d", sight.Next, mark)
	}
}

func TestReadersHoldNothingUp(t *testing.T) {
	r := newRig(t, nil)
	for _, application := range []string{"report", "db reads", "db monitor"} {
		r.exec(r.session(application), "begin isolation level repeatable read", "select * from t")
	}
	mark := r.mark()
	if sight := r.look(); below(sight, mark) != 0 || len(sight.Unnumbered) != 0 {
		t.Fatalf("mark %d, %+v", mark, sight)
	}
}

// A statement whose client is gone may come to write later: it has no number yet.
func TestOurUnnumberedTransactionHoldsTheFence(t *testing.T) {
	r := newRig(t, &pgwitness.Options{Ours: []string{"shop"}})
	for _, application := range []string{"shop", "shop partitions"} {
		conn := r.session(application)
		r.exec(conn, "begin", "select 1")
		if sight := r.look(); len(sight.Unnumbered) != 1 || sight.Unnumbered[0].Application != application || !sight.Unnumbered[0].Ours {
			t.Fatalf("%s: %+v", application, sight)
		}
		r.exec(conn, "rollback")
	}
	r.exec(r.session("shopping"), "begin", "select 1")
	if sight := r.look(); len(sight.Unnumbered) != 0 {
		t.Fatalf("another program's: %+v", sight)
	}
}

func TestPreparedTransactionHoldsTheFence(t *testing.T) {
	r := newRig(t, nil)
	conn := r.session("psql")
	r.exec(conn, "begin", "insert into t values (1)", "prepare transaction 'half done'")
	mark := r.mark()
	if sight := r.look(); len(sight.Prepared) != 1 || sight.Prepared[0].Name != "half done" || sight.Prepared[0].Number >= mark {
		t.Errorf("mark %d, %+v", mark, sight)
	}
	mark = r.mark()
	r.exec(r.session("psql"), "begin", "insert into t values (1)", "prepare transaction 'later'")
	if sight := r.look(); len(sight.Prepared) != 2 || sight.Prepared[1].Number <= mark {
		t.Errorf("mark %d, %+v", mark, sight)
	}
	r.exec(conn, "rollback prepared 'later'")
	r.exec(conn, "rollback prepared 'half done'")
	if sight := r.look(); len(sight.Prepared) != 0 {
		t.Errorf("%+v", sight)
	}
}

func TestOtherDatabasesDoNotCount(t *testing.T) {
	r, other := newRig(t, nil), newRig(t, nil)
	conn := other.session("db")
	r.exec(conn, "begin", "insert into t values (1)")
	r.exec(other.session("db"), "begin", "select 1")
	mark := r.mark()
	if sight := r.look(); below(sight, mark) != 0 || len(sight.Unnumbered) != 0 {
		t.Fatalf("mark %d, %+v", mark, sight)
	}
	r.exec(conn, "prepare transaction 'theirs'")
	if sight := r.look(); below(sight, mark) != 0 || len(sight.Prepared) != 0 {
		t.Fatalf("mark %d, %+v", mark, sight)
	}
	r.exec(conn, "rollback prepared 'theirs'")
}

// With the lock, a foreign transaction that holds it is waited for although it has no number.
func TestLockHoldsTheFence(t *testing.T) {
	r := newRig(t, &pgwitness.Options{Lock: 99})
	conn := r.session("other program")
	r.exec(conn, "begin", "select pg_advisory_xact_lock_shared(99)")
	if _, err := r.witness.Look(r.ctx); err == nil || !strings.Contains(err.Error(), "advisory lock 99") {
		t.Fatalf("Look = %v", err)
	}
	r.exec(conn, "commit")
	r.look()
	r.exec(conn, "begin", "select pg_advisory_xact_lock_shared(99)", "commit") // the witness keeps nothing
}

func TestBlindRoleSaysSo(t *testing.T) {
	r := newRig(t, nil)
	r.exec(r.session("setup"), "drop role if exists stranger", "create role stranger login", "grant select on t to stranger")
	t.Cleanup(func() { r.pool.Exec(context.Background(), "drop owned by stranger; drop role stranger") })
	writer := r.session("psql")
	r.exec(writer, "begin", "insert into t values (1)")
	config := r.pool.Config()
	config.ConnConfig.User = "stranger"
	pool, err := pgxpool.NewWithConfig(r.ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if r.witness, err = pgwitness.New(pool, nil); err != nil {
		t.Fatal(err)
	}
	mark := r.mark()
	if sight := r.look(); !sight.Blind || below(sight, mark) != 1 {
		t.Fatalf("mark %d, %+v", mark, sight)
	}
}

func TestNewReturnsEveryMistake(t *testing.T) {
	if _, err := pgwitness.New(nil, &pgwitness.Options{Ours: []string{""}, Timeout: -1}); err == nil || strings.Count(err.Error(), "pgwitness:") != 3 {
		t.Fatalf("error = %v", err)
	}
}

func BenchmarkLook(b *testing.B) {
	c := shared.Get(b)
	pool, err := pgxpool.New(b.Context(), c.Primary().URL(c.Database(b)))
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	w, err := pgwitness.New(pool, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := w.Look(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
