package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

var postgres = pgcluster.NewShared(&pgcluster.Options{Replicas: 1})

func dbTested(t *testing.T, change func(*dbSize)) (string, error) {
	t.Helper()
	c := postgres.Get(t)
	size := usualDBSize()
	size.leads, size.rate, size.duration = 20_000, 20, time.Second
	size.patience = 100 // a busy machine is slow by itself
	change(&size)
	var out bytes.Buffer
	err := dbTestOn(t.Context(), &out, servers{c.Primary().URL("postgres"), []string{c.Replica(0).URL("postgres")}}, size)
	return out.String(), err
}

func TestDBPasses(t *testing.T) {
	if out, err := dbTested(t, func(*dbSize) {}); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	conn, err := pgx.Connect(t.Context(), postgres.Get(t).Primary().URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var left int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_database WHERE datname LIKE 'perftest%'`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d databases left behind, %v", left, err)
	}
}

func TestABrokenDatabaseFailsTheRightProbe(t *testing.T) {
	run := func(sql string) func(context.Context, *pgx.Conn) error {
		return func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, sql)
			return err
		}
	}
	const slowly = `CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
		CREATE TRIGGER slowly BEFORE INSERT ON "Lead" FOR EACH ROW EXECUTE FUNCTION slowly()`
	for probe, fault := range map[string]func(*testing.T, *dbSize){
		"ListLeads reads no large table from end to end": func(_ *testing.T, s *dbSize) { s.prepare = run(`DROP INDEX "Lead_createdAt_idx"`) },
		"CreateLead is fast":                             func(_ *testing.T, s *dbSize) { s.prepare, s.patience = run(slowly), 1 },
		"the pool suffices":                              func(_ *testing.T, s *dbSize) { s.prepare, s.pool, s.rate = run(slowly), 1, 100 },
		"replicas keep up": func(t *testing.T, s *dbSize) {
			s.lag, s.duration = time.Second, 3*time.Second
			s.meanwhile = func(ctx context.Context) error {
				replica := postgres.Get(t).Replica(0)
				t.Cleanup(func() {
					if err := replica.ResumeReplay(context.WithoutCancel(ctx)); err != nil {
						t.Error(err)
					}
				})
				return replica.PauseReplay(ctx)
			}
		},
	} {
		t.Run(probe, func(t *testing.T) {
			out, err := dbTested(t, func(s *dbSize) { fault(t, s) })
			if err == nil || !strings.Contains(err.Error(), probe) {
				t.Errorf("error %v, want one that names %q:\n%s", err, probe, out)
			}
		})
	}
}
