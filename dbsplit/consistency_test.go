package dbsplit_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

func TestReadsGoToReplicasAndWritesToThePrimary(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{Registerer: reg})
	ctx := within(t, 20*time.Second)
	if s := served(t, ctx, db); s != "primary" {
		t.Errorf("QueryRow on the DB was served by the %s", s)
	}
	for range 200 {
		if s := served(t, ctx, db.Read()); s != "replica" {
			t.Errorf("Read was served by the %s", s)
		}
	}
	if s := served(t, ctx, db.Read(dbsplit.PreferPrimary())); s != "primary" {
		t.Errorf("PreferPrimary was served by the %s", s)
	}
	await(t, db, "both replicas to serve", func() bool {
		served(t, ctx, db.Read())
		first, second := db.Nodes()[1].Name, db.Nodes()[2].Name
		return counter(t, reg, "db_reads_total", "node", first, "reason", "replica") > 20 &&
			counter(t, reg, "db_reads_total", "node", second, "reason", "replica") > 20
	})
	for mode, want := range map[pgx.TxAccessMode]string{pgx.ReadOnly: "replica", pgx.ReadWrite: "primary", "": "primary"} {
		tx, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: mode})
		must(t, err)
		if s := served(t, ctx, tx); s != want {
			t.Errorf("a %q transaction was served by the %s", mode, s)
		}
		must(t, tx.Rollback(ctx))
	}
	tx, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.Serializable})
	must(t, err)
	if s := served(t, ctx, tx); s != "primary" {
		t.Errorf("a serializable read-only transaction was served by the %s", s)
	}
	must(t, tx.Commit(ctx))
	if err := tx.Commit(ctx); !errors.Is(err, pgx.ErrTxClosed) {
		t.Errorf("second commit: %v", err)
	}
}

// writers are the ways to write; each must mark the watermark.
var writers = map[string]func(ctx context.Context, db *dbsplit.DB, n int) error{
	"Exec": func(ctx context.Context, db *dbsplit.DB, n int) error {
		_, err := db.Exec(ctx, "insert into notes values ($1)", n)
		return err
	},
	"QueryRow": func(ctx context.Context, db *dbsplit.DB, n int) error {
		return db.QueryRow(ctx, "insert into notes values ($1) returning n", n).Scan(new(int))
	},
	"Query": func(ctx context.Context, db *dbsplit.DB, n int) error {
		rows, _ := db.Query(ctx, "with w as (insert into notes values ($1) returning n) select n from w", n)
		_, err := pgx.CollectRows(rows, pgx.RowTo[int])
		return err
	},
	"SendBatch": func(ctx context.Context, db *dbsplit.DB, n int) error {
		var b pgx.Batch
		b.Queue("insert into notes values ($1)", n)
		b.Queue("select 1")
		return db.SendBatch(ctx, &b).Close()
	},
	"CopyFrom": func(ctx context.Context, db *dbsplit.DB, n int) error {
		_, err := db.CopyFrom(ctx, pgx.Identifier{"notes"}, []string{"n"}, pgx.CopyFromRows([][]any{{n}}))
		return err
	},
	"InTx": func(ctx context.Context, db *dbsplit.DB, n int) error {
		return db.InTx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(context.WithoutCancel(ctx), "insert into notes values ($1)", n)
			return err
		})
	},
	"Commit under another context": func(ctx context.Context, db *dbsplit.DB, n int) error {
		tx, err := db.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(context.Background())
		if _, err := tx.Exec(context.Background(), "insert into notes values ($1)", n); err != nil {
			return err
		}
		return tx.Commit(context.Background())
	},
	"Batch.BeginTx": func(ctx context.Context, db *dbsplit.DB, n int) error {
		var b pgx.Batch
		b.BeginTx(pgx.TxOptions{})
		b.Queue("insert into notes values ($1)", n)
		results := db.SendBatch(ctx, &b)
		defer func() {
			if tx := results.Tx(); tx != nil {
				tx.Rollback(context.Background())
			}
		}()
		if err := results.Close(); err != nil {
			return err
		}
		return results.Tx().Commit(ctx)
	},
	"Acquire, still held": func(ctx context.Context, db *dbsplit.DB, n int) error {
		conn, err := db.Acquire(ctx)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, conn.Release)
		_, err = conn.Exec(ctx, "insert into notes values ($1)", n)
		return err
	},
	"below pgx": func(ctx context.Context, db *dbsplit.DB, n int) error {
		conn, err := db.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		_, err = conn.Conn().PgConn().Exec(context.Background(), "insert into notes values (1)").ReadAll()
		return err
	},
	"a function that writes": func(ctx context.Context, db *dbsplit.DB, n int) error {
		return db.QueryRow(ctx, "select note($1)", n).Scan(nil)
	},
	"prepared transaction": func(ctx context.Context, db *dbsplit.DB, n int) error {
		id := rand.Text()
		if _, err := db.Exec(context.Background(), fmt.Sprintf("begin; insert into notes values (%d); prepare transaction '%s'", n, id)); err != nil {
			return err
		}
		// Who commits may be somebody else, under another watermark.
		_, err := db.Exec(ctx, fmt.Sprintf("commit prepared '%s'", id))
		return err
	},
	"synchronous_commit=off": func(ctx context.Context, db *dbsplit.DB, n int) error {
		return db.InTx(ctx, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "set local synchronous_commit = off"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "insert into notes values ($1)", n)
			return err
		})
	},
}

func notes(t testing.TB, db *dbsplit.DB) {
	t.Helper()
	exec(t, db, "create table notes (n int)")
	exec(t, db, "create function note(int) returns void language sql as 'insert into notes values ($1)'")
}

func pause(t testing.TB, c *pgcluster.Cluster) (resume func()) {
	t.Helper()
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(within(t, 10*time.Second)))
		must(t, s.PauseReplay(within(t, 10*time.Second)))
	}
	resume = func() {
		for _, s := range c.Servers()[1:] {
			must(t, s.ResumeReplay(context.Background()))
		}
	}
	t.Cleanup(resume)
	return resume
}

// Replay is paused, so that only a read from the primary can find what each writer has written.
func TestReadYourWrites(t *testing.T) {
	db, c, database := settled(t, nil)
	other := run(t, nodesOf(c, database), nil) // as in another process
	notes(t, db)
	resume := pause(t, c)
	const count = "select count(*)::int from notes"
	before := 0
	for name, write := range writers {
		ctx, cancel := context.WithCancel(within(t, 20*time.Second))
		defer cancel()
		ctx, w := scaleaware.WithWatermark(ctx)
		if err := write(ctx, db, 1); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before++
		if n := get[int](t, ctx, db.Read(), count); n != before {
			t.Errorf("%s: the read found %d rows, want %d", name, n, before)
		}
		written, err := w.Written(ctx)
		must(t, err)
		tokens, err := scaleaware.ParseTokens(written.String())
		must(t, err)
		elsewhere, carried := scaleaware.WithWatermark(within(t, 20*time.Second))
		for _, token := range tokens {
			carried.Raise(token)
		}
		if n := get[int](t, elsewhere, other.Read(), count); n != before {
			t.Errorf("%s: with the token elsewhere the read found %d rows, want %d", name, n, before)
		}
	}
	ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
	must(t, writers["Exec"](ctx, db, 1))
	resume()
	await(t, db, "a replica that has the write", func() bool { return served(t, ctx, db.Read()) == "replica" })
	if n := get[int](t, ctx, db.Read(), count); n != before+1 {
		t.Errorf("after the resume the replica had %d rows, want %d", n, before+1)
	}
}

// With synchronous_commit off a commit is visible before it is flushed: the flushed position would be too low a token.
func TestAsynchronousCommit(t *testing.T) {
	db, c, _ := settled(t, nil)
	notes(t, db)
	for i := range 5 {
		resume := pause(t, c)
		ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
		must(t, writers["synchronous_commit=off"](ctx, db, i))
		if n := get[int](t, ctx, db.Read(), "select count(*)::int from notes"); n != i+1 {
			t.Errorf("the read found %d rows, want %d", n, i+1)
		}
		resume()
	}
}

// A healthy replica catches up within the wait, so most reads after a write stay off the primary.
func TestWaitForReplica(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{Registerer: reg, WaitForReplica: 10 * time.Second})
	notes(t, db)
	for i := range 100 {
		ctx, _ := scaleaware.WithWatermark(within(t, 20*time.Second))
		exec(t, watched{db, ctx}, "insert into notes values ($1)", i)
		if n := get[int](t, ctx, db.Read(), "select count(*)::int from notes"); n != i+1 {
			t.Fatalf("write %d is missing: %d rows", i, n)
		}
	}
	if got := counter(t, reg, "db_reads_total", "role", "replica"); got != 100 {
		t.Errorf("replicas served %v of 100 reads", got)
	}
}

func TestForeignAndImpossibleTokens(t *testing.T) {
	reg := prometheus.NewRegistry()
	db, _, _ := settled(t, &dbsplit.Options{Registerer: reg})
	now, err := db.Position(t.Context())
	must(t, err)
	for name, test := range map[string]struct {
		token scaleaware.Token
		from  string
		count string
	}{
		"another system":   {scaleaware.Token{System: now.System + 1, Timeline: 1, LSN: 1 << 60}, "replica", ""},
		"far future":       {scaleaware.Token{System: now.System, Timeline: now.Timeline, LSN: 1 << 60}, "replica", "impossible"},
		"unknown timeline": {scaleaware.Token{System: now.System, Timeline: now.Timeline + 1, LSN: 1}, "", "ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, w := scaleaware.WithWatermark(within(t, 10*time.Second))
			w.Raise(test.token)
			if test.from == "" {
				if err := db.Read().QueryRow(ctx, "select 1").Scan(nil); !errors.Is(err, dbsplit.ErrNoNode) {
					t.Errorf("answered: %v", err)
				}
			} else if s := served(t, ctx, db.Read()); s != test.from {
				t.Errorf("served by the %s", s)
			}
			if test.count != "" && counter(t, reg, "db_tokens_total", "outcome", test.count) != 1 {
				t.Errorf("not counted as %s", test.count)
			}
		})
	}
}

// What a read reports as its position is never above what the answering node had replayed.
func TestSaw(t *testing.T) {
	db, c, _ := settled(t, nil)
	notes(t, db)
	pause(t, c)
	before, err := db.Position(t.Context())
	must(t, err)
	exec(t, db, "insert into notes values (1)")
	ctx, w := scaleaware.WithWatermark(within(t, 10*time.Second))
	if n := get[int](t, ctx, db.Read(), "select count(*)::int from notes"); n != 0 {
		t.Fatalf("the paused replica has %d rows", n)
	}
	if ok, known := before.Covers(w.AsOf().For(before.System)); !ok || !known {
		t.Errorf("the read claims %v, but the replica stood at %v", w.AsOf(), before)
	}
}

// On a quiet primary a commit that ends on a page's end leaves the insert position behind the next page's header, which
// no replica replays.
func TestPageHeader(t *testing.T) {
	db, _, _ := settled(t, &dbsplit.Options{WaitForReplica: 5 * time.Second})
	notes(t, db)
	ctx := within(t, 60*time.Second)
	conn, err := db.Acquire(ctx)
	must(t, err)
	defer conn.Release()
	var p scaleaware.Token
	for { // one commit in about nine hundred ends there; when another session writes just then, the next one will do
		_, err := conn.Exec(ctx, "insert into notes values (1)")
		must(t, err)
		if get[int64](t, ctx, conn, "select ((pg_current_wal_insert_lsn() - '0/0') % 8192)::bigint") != 24 {
			continue
		}
		p, err = db.Position(ctx)
		must(t, err)
		if p.LSN%8192 == 24 {
			t.Fatalf("the position %v lies behind a page's header", p)
		}
		if p.LSN%8192 == 0 {
			break
		}
	}
	ctx, w := scaleaware.WithWatermark(ctx)
	w.Raise(p)
	if s := served(t, ctx, db.Read()); s != "replica" {
		t.Errorf("served by the %s: no replica is seen to catch up", s)
	}
}

// watched executes under a context of its own.
type watched struct {
	db  *dbsplit.DB
	ctx context.Context //nolint:containedctx // a test's
}

func (w watched) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return w.db.Exec(w.ctx, sql, args...)
}
