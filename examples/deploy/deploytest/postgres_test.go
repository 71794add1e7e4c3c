package deploytest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const database = "insurance_lead_gen"

var postgresPrograms = []string{"postgres", "psql"}

// overrides are what a server of these files needs on this machine. The command line wins over the file.
func (s *stage) overrides(t *testing.T, service, dir string) []string {
	t.Helper()
	return []string{
		"-c", "config_file=" + s.adapt(t, "postgres/postgresql.conf", dir), "-c", "listen_addresses=127.0.0.1", "-c", "port=" + s.port(service),
		"-c", "unix_socket_directories=" + dir, "-c", "fsync=off", "-c", "shared_buffers=64MB",
	}
}

// startPostgres does for the primary what the image's entrypoint does, and runs the replica's own entrypoint.
func (s *stage) startPostgres(t *testing.T) {
	t.Helper()
	const service = "postgres-primary:5432"
	socket := s.mkdir(t, "primary-socket")
	data := s.mkdir(t, "primary-data")
	s.run(t, "initdb", postgresPrograms, nil, "initdb", "-D", data, "-U", "postgres", "--pwfile="+s.secret("postgres_password"),
		"-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--data-checksums", "--no-sync", "--no-instructions")
	primary := s.start(t, "postgres-primary", postgresPrograms, nil, "postgres", append([]string{"-D", data}, s.overrides(t, service, socket)...)...)
	await(t, "the primary", primary, func(ctx context.Context) error {
		return s.ask(t, ctx, service, "postgres", "postgres", "SELECT 1", nil)
	})
	must(t, s.ask(t, t.Context(), service, "postgres", "postgres", "CREATE DATABASE "+database, nil))
	env := append(s.environment(t, "postgres-primary", socket), "PGHOST="+socket, "PGPORT="+s.port(service), "PGPASSWORD="+s.secretValue(t, "postgres_password"))
	s.run(t, "primary-init", postgresPrograms, env, filepath.Join(s.dir, "postgres/primary-init.sh"))
	s.mkdir(t, "replica-data")
	s.startReplica(t)
}

// startReplica runs the entrypoint as Compose does, and returns when the replica streams.
func (s *stage) startReplica(t *testing.T) {
	t.Helper()
	const service = "postgres-replica:5432"
	socket := filepath.Join(s.home.Dir(), "replica-socket")
	if _, err := os.Stat(socket); err != nil {
		s.mkdir(t, "replica-socket")
	}
	env := append(s.environment(t, "postgres-replica", socket),
		"PRIMARY_HOST=127.0.0.1", "PRIMARY_PORT="+s.port("postgres-primary:5432"),
		"PGDATA="+filepath.Join(s.home.Dir(), "replica-data"), "PASSFILE="+filepath.Join(socket, "pgpass"))
	args := append([]string{filepath.Join(s.dir, "postgres/replica.sh"), "postgres"}, s.overrides(t, service, socket)...)
	replica := s.start(t, "postgres-replica", postgresPrograms, env, "/bin/sh", args...)
	await(t, "the replica", replica, func(ctx context.Context) error {
		var status string
		if err := s.ask(t, ctx, service, "app_user", database, "SELECT status FROM pg_stat_wal_receiver WHERE slot_name = 'replica_1'", &status); err != nil {
			return err
		}
		if status != "streaming" {
			return errors.New(status)
		}
		return nil
	})
}

// ask runs a statement as a role that logs in with its password.
func (s *stage) ask(t *testing.T, ctx context.Context, service, role, db, sql string, into any) error {
	t.Helper()
	passwords := map[string]string{"postgres": "postgres_password", "app_user": "app_password", "replicator": "replicator_password", "pgbouncer": "pgbouncer_password"}
	return s.askAs(ctx, service, url.UserPassword(role, s.secretValue(t, passwords[role])), db, sql, into)
}

func (s *stage) askAs(ctx context.Context, service string, user *url.Userinfo, db, sql string, into any) error {
	config, err := pgx.ParseConfig((&url.URL{Scheme: "postgres", User: user, Host: s.addr(service), Path: "/" + db, RawQuery: "sslmode=disable"}).String())
	if err != nil {
		return err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if into == nil {
		_, err = conn.Exec(ctx, sql)
		return err
	}
	return conn.QueryRow(ctx, sql).Scan(into)
}

func TestPostgresConfiguration(t *testing.T) {
	s := open(t)
	for _, service := range []string{"postgres-primary:5432", "postgres-replica:5432"} {
		var wrong, set int
		must(t, s.ask(t, t.Context(), service, "postgres", database, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL AND name NOT IN ('listen_addresses', 'shared_buffers')", &wrong)) // see overrides
		must(t, s.ask(t, t.Context(), service, "postgres", database, "SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.conf'", &set))
		if wrong > 0 || set < 30 {
			t.Errorf("%s: %d of %d settings of the file are wrong", service, wrong, set)
		}
		must(t, s.ask(t, t.Context(), service, "postgres", database, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL OR auth_method = 'trust'", &wrong))
		if wrong > 0 {
			t.Errorf("%s: %d lines of pg_hba.conf are wrong, or trust", service, wrong)
		}
		for name, want := range map[string]string{
			"max_slot_wal_keep_size": "4GB", "hot_standby_feedback": "off", "password_encryption": "scram-sha-256", "wal_level": "replica",
			"max_connections": "200", "pg_stat_statements.track_utility": "off", "idle_in_transaction_session_timeout": "1min",
		} {
			var got string
			if must(t, s.ask(t, t.Context(), service, "postgres", database, "SHOW "+name, &got)); got != want {
				t.Errorf("%s: %s is %s, want %s", service, name, got, want)
			}
		}
	}
	var scram int
	must(t, s.ask(t, t.Context(), "postgres-primary:5432", "postgres", database, "SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%'", &scram))
	if scram != 4 {
		t.Errorf("%d roles have a SCRAM verifier, want 4", scram)
	}
}

// TestPostgresAccess sees who gets in, and that no password is where somebody could read it.
func TestPostgresAccess(t *testing.T) {
	s := open(t)
	for what, user := range map[string]*url.Userinfo{
		"a wrong password": url.UserPassword("app_user", "wrong"), "no password": url.User("postgres"),
		"the replication role": url.UserPassword("replicator", s.secretValue(t, "replicator_password")),
	} {
		if err := s.askAs(t.Context(), "postgres-primary:5432", user, database, "SELECT 1", nil); err == nil {
			t.Errorf("%s opens the database", what)
		}
	}
	if err := s.ask(t, t.Context(), "postgres-primary:5432", "app_user", "postgres", "SELECT 1", nil); err == nil {
		t.Error("the application enters other databases than its own")
	}
	for _, forbidden := range []string{"SELECT * FROM pg_authid", "SELECT pgbouncer.lookup('postgres')", "CREATE ROLE x"} {
		if err := s.ask(t, t.Context(), "postgres-primary:5432", "app_user", database, forbidden, nil); err == nil {
			t.Errorf("the application may: %s", forbidden)
		}
	}
	places := map[string]string{}
	for name, p := range s.processes {
		places["the log of "+name] = p.Log()
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid()))
		if err == nil {
			places["the arguments of "+name] = string(cmdline)
		}
	}
	places["the replica's configuration"] = string(read(t, filepath.Join(s.home.Dir(), "replica-data/postgresql.auto.conf")))
	var statements string
	must(t, s.ask(t, t.Context(), "postgres-primary:5432", "postgres", database, "SELECT coalesce(string_agg(query, ' '), '') FROM pg_stat_statements", &statements))
	places["pg_stat_statements"] = statements
	for _, secret := range []string{"postgres_password", "replicator_password", "app_password", "pgbouncer_password", "redis_password", "admin_token", "viewer_token", "session_secret"} {
		for place, text := range places {
			if strings.Contains(text, s.secretValue(t, secret)) {
				t.Errorf("%s is in %s", secret, place)
			}
		}
	}
	if text := places["the replica's configuration"]; !strings.Contains(text, "passfile") {
		t.Errorf("the replica's configuration is not what pg_basebackup -R writes: %s", text)
	}
}

// TestReplicaOfCutOffCopy ends a replica and takes the mark of a whole copy away: the entrypoint makes it anew, slot and all.
func TestReplicaOfCutOffCopy(t *testing.T) {
	s := open(t)
	s.processes["postgres-replica"].Stop(10 * time.Second)
	mark := filepath.Join(s.home.Dir(), "replica-data/backup_manifest")
	before, err := os.Stat(mark)
	must(t, err)
	s.startReplica(t)
	if after, err := os.Stat(mark); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("a replica that starts again is copied again: %v, %v", after, err)
	}
	s.processes["postgres-replica"].Stop(10 * time.Second)
	must(t, os.Remove(mark))
	s.startReplica(t)
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the copy was not made anew: %v", err)
	}
}
