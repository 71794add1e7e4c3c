package pgbouncer_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgbouncer"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

var shared = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Around(m)) }

func start(t *testing.T, opts *pgbouncer.Options) *pgbouncer.Pooler {
	t.Helper()
	p, err := pgbouncer.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Logs())
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func pid(t *testing.T, conn *pgx.Conn) (pid uint32) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestModes(t *testing.T) {
	c := shared.Get(t)
	database := c.Database(t)
	for mode, shares := range map[string]bool{pgbouncer.Session: false, pgbouncer.Transaction: true} {
		t.Run(mode, func(t *testing.T) {
			p := start(t, &pgbouncer.Options{Upstream: c.Primary().Addr(), Mode: mode})
			a, b := connect(t, p.URL(database)), connect(t, p.URL(database))
			if pid(t, a) == a.PgConn().PID() {
				t.Error("there is no pooler in between")
			}
			if same := pid(t, a) == pid(t, b); same != shares {
				t.Errorf("two clients share a server connection: %v, want %v", same, shares)
			}
			rows, err := p.Console(t.Context(), "show pools")
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, r := range rows {
				found = found || r["database"] == database && r["pool_mode"] == mode
			}
			if !found {
				t.Errorf("the console knows no such pool: %v", rows)
			}
		})
	}
}

func TestDefaultsRefuseStartupParameters(t *testing.T) {
	c := shared.Get(t)
	p := start(t, &pgbouncer.Options{Upstream: c.Primary().Addr()})
	_, err := pgx.Connect(t.Context(), p.URL("postgres")+"&lock_timeout=1")
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "08P01" {
		t.Errorf("an unknown startup parameter: %v", err)
	}
	lax := start(t, &pgbouncer.Options{Upstream: c.Primary().Addr(), Settings: map[string]string{"ignore_startup_parameters": "lock_timeout"}})
	connect(t, lax.URL("postgres")+"&lock_timeout=1")
}

func TestRetargetAndKill(t *testing.T) {
	c := shared.Get(t)
	p := start(t, &pgbouncer.Options{Upstream: c.Primary().Addr(), Mode: pgbouncer.Transaction})
	conn := connect(t, p.URL("postgres"))
	recovering := func() (in bool) {
		if err := conn.QueryRow(t.Context(), "select pg_is_in_recovery()").Scan(&in); err != nil {
			t.Fatal(err)
		}
		return in
	}
	if recovering() {
		t.Fatal("the primary is in recovery")
	}
	if err := p.Retarget(t.Context(), c.Replica(0).Addr()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for !recovering() {
		if time.Now().After(deadline) {
			t.Fatal("the client is still served by the primary")
		}
	}
	p.Kill()
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a killed pooler answers")
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn = connect(t, p.URL("postgres"))
	if !recovering() {
		t.Error("it came back with another server behind it")
	}
	if err := p.Start(t.Context()); err == nil {
		t.Error("it was started twice")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := pgbouncer.Start(t.Context(), &pgbouncer.Options{
		Upstream: "nowhere", Mode: "statement", PoolSize: -1, Settings: map[string]string{"pool_mode": "session"},
	})
	for _, part := range []string{"Upstream", "Mode", "PoolSize", "pool_mode"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %s: %v", part, err)
		}
	}
}
