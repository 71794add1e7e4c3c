package migrations

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/queue"
)

var postgres = pgcluster.NewShared(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgres.Around(m)) }

// fresh returns a Migrator of an empty database, and a connection to look at it.
func fresh(t *testing.T) (*Migrator, *pgx.Conn, string) {
	t.Helper()
	url := postgres.Get(t).Primary().URL(postgres.Get(t).Database(t))
	return open(t, url), connect(t, url), url
}

func open(t *testing.T, url string) *Migrator {
	t.Helper()
	m, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func up(t *testing.T, m *Migrator) Report {
	t.Helper()
	report, err := m.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func ask[T any](t *testing.T, conn *pgx.Conn, sql string) (answer T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

const ours = `SELECT count(*)::int FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'goose%' AND relname NOT LIKE 'pg_stat%'`

func TestUpAndDownAndUpAgain(t *testing.T) {
	m, conn, _ := fresh(t)
	missing := func(want string) {
		t.Helper()
		if got, err := Missing(t.Context(), conn); err != nil || strings.Join(got, " ") != want {
			t.Errorf("missing are %q, %v, want %q", got, err, want)
		}
	}
	missing("00001_schema 00002_outbox 00003_read_only")
	if first := up(t, m); len(first.Applied) != 4 || len(first.Partitions) != 2 {
		t.Errorf("first: %+v", first)
	}
	missing("")
	before := ask[int](t, conn, ours)
	if again := up(t, m); len(again.Applied) != 0 || len(again.Partitions) != 0 {
		t.Errorf("again: %+v", again)
	}

	done, err := m.Down(t.Context(), false)
	if err != nil || Name(done.Source) != "20240101000000_add_performance_indexes" {
		t.Fatalf("down: %v, %v", done, err)
	}
	missing("") // the service does without
	if _, err := m.Down(t.Context(), false); err == nil || !strings.Contains(err.Error(), "-lose-rows") {
		t.Errorf("down to where rows are lost: %v", err)
	}
	for range 3 {
		if _, err := m.Down(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if left := ask[int](t, conn, ours); left != 0 {
		t.Errorf("%d relations are left", left)
	}
	missing("00001_schema 00002_outbox 00003_read_only")
	if _, err := m.Down(t.Context(), true); err == nil || !strings.Contains(err.Error(), "nothing to revert") {
		t.Errorf("down from nothing: %v", err)
	}
	up(t, m)
	if after := ask[int](t, conn, ours); after != before {
		t.Errorf("%d relations at first, %d in the end", before, after)
	}
}

// Databases from before there were migrations, made by a schema.sql at each start, are taken over with their rows.
func TestUpTakesOverWhatIsThere(t *testing.T) {
	m, conn, _ := fresh(t)
	schema, err := files.ReadFile("00001_schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	forwards, _, _ := strings.Cut(string(schema), "-- +goose Down")
	run(t, conn, forwards, queue.OutboxSchema,
		`CREATE TABLE "Event_2024_01" PARTITION OF "Event" FOR VALUES FROM ('2024-01-01Z') TO ('2024-02-01Z')`,
		`INSERT INTO "Event" (id, "entityType", "entityId", kind, timestamp) VALUES (gen_random_uuid(), 'Lead', gen_random_uuid(), 'created', '2024-01-05Z')`)
	up(t, m)
	if rows := ask[int](t, conn, `SELECT count(*)::int FROM "Event"`); rows != 1 {
		t.Errorf("%d rows", rows)
	}
	if indexed := ask[bool](t, conn, `SELECT indisvalid FROM pg_index WHERE indexrelid = '"Event_2024_01_kind_idx"'::regclass`); !indexed {
		t.Error("the old partition has no index")
	}
}

func TestInstancesMigrateAtOnce(t *testing.T) {
	_, conn, url := fresh(t)
	var group sync.WaitGroup
	for range 8 {
		m := open(t, url)
		group.Go(func() {
			if _, err := m.Up(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := ask[int](t, conn, `SELECT count(*)::int FROM goose_db_version WHERE version_id > 0`); n != 4 {
		t.Errorf("%d migrations are recorded", n)
	}
}

// An operator cancels the build of an index, as the runbook does with long queries. What is left is found by everything that
// looks, nothing is reverted by mistake, and the next Up finishes.
func TestBrokenOffBuildIsFoundAndTakenUpAgain(t *testing.T) {
	m, conn, url := fresh(t)
	up(t, m)
	if _, err := m.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	old := connect(t, url) // a transaction that the build has to wait for, with a lock on the partition alone
	month := ask[string](t, conn, `SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = '"Event"'::regclass`)
	run(t, old, `BEGIN`, `INSERT INTO `+month+` (id, "entityType", "entityId", kind, timestamp) VALUES (gen_random_uuid(), 'Lead', gen_random_uuid(), 'created', date_trunc('month', now(), 'UTC'))`)
	ended := make(chan error, 1)
	go func() {
		_, err := m.Up(t.Context())
		ended <- err
	}()
	for !ask[bool](t, conn, `SELECT count(pg_cancel_backend(pid)) > 0 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%' AND datname = current_database()`) {
		select {
		case err := <-ended:
			t.Fatalf("nothing waited: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	names := func(what string, text string) {
		t.Helper()
		for _, want := range []string{`_kind_idx" on "Event_`, `DROP INDEX CONCURRENTLY "Event_`, "leadapi migrate up"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %s: %s", what, want, text)
			}
		}
	}
	err := <-ended
	if err == nil || !strings.Contains(err.Error(), "20240101000000_add_performance_indexes failed") {
		t.Fatalf("a cancelled build: %v", err)
	}
	names("up", err.Error())
	all, left, err := m.Status(t.Context())
	if err != nil || len(left) != 2 || all[3].State != "pending" {
		t.Fatalf("status: %v, %v, %v", all, left, err)
	}
	names("status", left[0].String()+left[1].String())
	if _, err = m.Down(t.Context(), true); err == nil {
		t.Fatal("down reverted the migration before the one that failed")
	}
	names("down", err.Error())
	run(t, old, `COMMIT`)
	up(t, m)
	if invalid := ask[int](t, conn, `SELECT count(*)::int FROM pg_index WHERE NOT indisvalid`); invalid != 0 {
		t.Errorf("%d indexes are unfinished", invalid)
	}
}

func TestPoolersAreRefused(t *testing.T) {
	if _, err := Open(t.Context(), "postgres://h/d?node_pooler=transaction"); err == nil || !strings.Contains(err.Error(), "DATABASE_URL_MIGRATIONS") {
		t.Errorf("error = %v", err)
	}
}
