package deploytest

import (
	"context"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
)

func (s *stage) startPoolers(t *testing.T) {
	t.Helper()
	for _, role := range []string{"primary", "replica"} {
		service := "pgbouncer-" + role + ":6432"
		dir := s.mkdir(t, "pgbouncer-"+role)
		config := s.adapt(t, "pgbouncer/pgbouncer.ini", dir)
		write(t, config, string(read(t, config))+"\nlisten_port = "+s.port(service)+"\n") // the last one counts
		env := append(s.environment(t, "pgbouncer-"+role, dir), "RUN_DIR="+dir, "UPSTREAM_HOST=127.0.0.1", "UPSTREAM_PORT="+s.port("postgres-"+role+":5432"))
		pooler := s.start(t, "pgbouncer-"+role, []string{"pgbouncer"}, env, "/bin/sh", filepath.Join(s.dir, "pgbouncer/start.sh"), config)
		await(t, "PgBouncer", pooler, func(ctx context.Context) error { return s.ask(t, ctx, service, "app_user", database, "SELECT 1", nil) })
	}
}

func TestPgBouncer(t *testing.T) {
	s := open(t)
	for service, wantRecovery := range map[string]bool{"pgbouncer-primary:6432": false, "pgbouncer-replica:6432": true} {
		var recovering bool
		must(t, s.ask(t, t.Context(), service, "app_user", database, "SELECT pg_is_in_recovery()", &recovering))
		if recovering != wantRecovery {
			t.Errorf("%s leads to a server in recovery: %v", service, recovering)
		}
		for what, user := range map[string]*url.Userinfo{
			"a wrong password": url.UserPassword("app_user", "wrong"),
			"the superuser":    url.UserPassword("postgres", s.secretValue(t, "postgres_password")),
			"nobody":           url.UserPassword("nobody", "x"),
		} {
			if err := s.askAs(t.Context(), service, user, database, "SELECT 1", nil); err == nil {
				t.Errorf("%s gets through %s", what, service)
			}
		}
		got := s.showConfig(t, service)
		for name, want := range map[string]string{
			"pool_mode": "transaction", "default_pool_size": "50", "max_db_connections": "60", "max_client_conn": "2000",
			"query_wait_timeout": "10", "auth_type": "scram-sha-256", "idle_transaction_timeout": "60",
		} {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", service, name, got[name], want)
			}
		}
	}
}

func (s *stage) showConfig(t *testing.T, service string) map[string]string {
	t.Helper()
	config, err := pgx.ParseConfig("postgres://pgbouncer:" + s.secretValue(t, "pgbouncer_password") + "@" + s.addr(service) + "/pgbouncer?sslmode=disable")
	must(t, err)
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // the console knows no other
	conn, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), "SHOW CONFIG")
	must(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	must(t, err)
	found := map[string]string{}
	for _, row := range all {
		key, _ := row["key"].(string)
		found[key], _ = row["value"].(string)
	}
	return found
}
