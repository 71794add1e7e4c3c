package pgcluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

var shared = pgcluster.NewShared(&pgcluster.Options{Replicas: 2})

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, s *pgcluster.Server, database string) *pgx.Conn {
	t.Helper()
	conn, err := s.Connect(within(t, 10*time.Second), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(within(t, 10*time.Second), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func get[T any](t *testing.T, conn *pgx.Conn, sql string) (v T) {
	t.Helper()
	if err := conn.QueryRow(within(t, 10*time.Second), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// notes is a table with one row, on the primary and on all replicas.
func notes(t *testing.T, c *pgcluster.Cluster) (database string, primary *pgx.Conn) {
	t.Helper()
	database = c.Database(t)
	primary = connect(t, c.Primary(), database)
	execute(t, primary, "create table notes (n int)")
	execute(t, primary, "insert into notes values (1)")
	for _, s := range c.Servers()[1:] {
		must(t, s.WaitCaughtUp(within(t, 10*time.Second)))
	}
	return database, primary
}

const count = "select count(*) from notes"
