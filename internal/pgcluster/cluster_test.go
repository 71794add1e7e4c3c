package pgcluster_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

func start(t *testing.T, opts *pgcluster.Options) *pgcluster.Cluster {
	t.Helper()
	shared.Get(t) // so that missing programs are told once, in one way
	begun := time.Now()
	c, err := pgcluster.Start(within(t, time.Minute), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begun).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Two clusters side by side, and in one of them a failover.
func TestPromoteAndFollow(t *testing.T) {
	c := start(t, &pgcluster.Options{Replicas: 2, Settings: map[string]string{"work_mem": "5MB"}})
	untouched := shared.Get(t)
	database, old := notes(t, c)
	next := c.Replica(0)
	ctx := within(t, 30*time.Second)
	conn := connect(t, next, database)
	if _, err := conn.Exec(ctx, "insert into notes values (2)"); sqlState(err) != "25006" {
		t.Errorf("a write on a replica: %v", err)
	}
	must(t, next.Promote(ctx))
	execute(t, conn, "insert into notes values (2)")
	if tli := get[string](t, conn, "select left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"); tli != "00000002" {
		t.Errorf("timeline %s after promotion", tli)
	}
	execute(t, old, "insert into notes values (3), (4)") // split brain, as in life
	must(t, c.Primary().Exec(ctx, "select 1"))
	c.Primary().Kill()

	if n := get[int](t, connect(t, untouched.Primary(), "postgres"), "select count(*) from pg_database where datname = '"+database+"x'"); n != 0 {
		t.Error("the clusters are not apart")
	}
	if v := get[string](t, conn, "show work_mem"); v != "5MB" {
		t.Errorf("work_mem = %s: settings do not reach replicas", v)
	}
	if err := next.WaitCaughtUp(ctx); err == nil {
		t.Error("a promoted server caught up with something")
	}
}

func TestRejoin(t *testing.T) {
	c := start(t, &pgcluster.Options{Replicas: 1, Settings: map[string]string{"wal_keep_size": "1GB"}})
	database, _ := notes(t, c)
	ctx := within(t, 30*time.Second)
	old, next := c.Primary(), c.Replica(0)
	for range 2 { // there and back
		must(t, old.Stop(ctx))
		must(t, next.Promote(ctx))
		execute(t, connect(t, next, database), "insert into notes values (2)")
		must(t, old.Rejoin(ctx, next))
		must(t, old.WaitCaughtUp(ctx))
		if a, b := get[int](t, connect(t, old, database), count), get[int](t, connect(t, next, database), count); a != b {
			t.Errorf("%s has %d rows, %s %d", old.Name(), a, next.Name(), b)
		}
		old, next = next, old
	}
	if err := old.Rejoin(ctx, next); err == nil {
		t.Error("a replica rejoined")
	}
}

func TestFollow(t *testing.T) {
	c := start(t, &pgcluster.Options{Replicas: 2})
	database, _ := notes(t, c)
	ctx := within(t, 30*time.Second)
	c.Primary().Kill()
	must(t, c.Replica(0).Promote(ctx))
	must(t, c.Replica(1).Follow(ctx, c.Replica(0)))
	execute(t, connect(t, c.Replica(0), database), "insert into notes values (2)")
	must(t, c.Replica(1).WaitCaughtUp(ctx))
	if n := get[int](t, connect(t, c.Replica(1), database), count); n != 2 {
		t.Errorf("the follower has %d rows, want 2", n)
	}
}

func TestSynchronous(t *testing.T) {
	c := start(t, &pgcluster.Options{Replicas: 1, Synchronous: 1})
	_, primary := notes(t, c)
	c.Replica(0).Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := primary.Exec(ctx, "insert into notes values (2)"); err == nil {
		t.Error("a commit did not wait for the frozen replica")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := pgcluster.Start(t.Context(), &pgcluster.Options{Replicas: -1, Settings: map[string]string{"a b": ""}})
	if err == nil || !strings.Contains(err.Error(), "Replicas") || !strings.Contains(err.Error(), "a b") {
		t.Errorf("error = %v", err)
	}
}

func TestStatementsArePreloaded(t *testing.T) {
	c := shared.Get(t)
	conn := connect(t, c.Primary(), c.Database(t))
	if !get[bool](t, conn, "select exists (select from pg_available_extensions where name = 'pg_stat_statements')") {
		if os.Getenv("SCALEAWARE_REQUIRE_SERVERS") == "1" {
			t.Fatal("this PostgreSQL has no contrib modules: install them (postgresql-contrib)")
		}
		t.Skip("this PostgreSQL has no contrib modules")
	}
	execute(t, conn, "create extension pg_stat_statements")
	if get[int](t, conn, "select count(*) from pg_stat_statements") == 0 {
		t.Error("no statements are counted")
	}
}

// The same without root, when we are root: the test binary runs again as nobody.
func TestWithoutRoot(t *testing.T) {
	const inner = "PGCLUSTER_TEST_INNER"
	if os.Getenv(inner) != "" {
		if os.Geteuid() == 0 {
			t.Fatal("still root")
		}
		c := start(t, &pgcluster.Options{Replicas: 1})
		notes(t, c)
		c.Replica(0).Kill()
		must(t, c.Replica(0).Start(within(t, 20*time.Second)))
		return
	}
	shared.Get(t)
	if os.Geteuid() != 0 {
		t.Skip("this is what all other tests try")
	}
	dir, err := os.MkdirTemp("/tmp", "pgcluster-test-") // t.TempDir is closed to others
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "test")
	copyFile(t, os.Args[0], binary)
	cmd := exec.CommandContext(within(t, time.Minute), binary, "-test.run=^TestWithoutRoot$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), inner+"=1", "TMPDIR=/tmp", "SCALEAWARE_REQUIRE_SERVERS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, out.Close())
}
