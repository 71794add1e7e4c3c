package localserver_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

func itoa(n int) string { return strconv.Itoa(n) }

// program writes one that answers --version, or fails to.
func program(t *testing.T, path, version string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(fmt.Sprintf("#!/bin/sh\necho '%s'\n", version)), 0o755); err != nil {
		t.Fatal(err)
	}
}

// alone is a machine with nothing on it but what the test writes.
func alone(t *testing.T) (path, cache string) {
	t.Helper()
	root := t.TempDir()
	path, cache = filepath.Join(root, "path"), filepath.Join(root, "cache")
	t.Setenv("PATH", path+":/bin:/usr/bin") // the programs are shell scripts
	t.Setenv("SCALEAWARE_SERVERS", cache)
	return path, cache
}

func TestFindRedis(t *testing.T) {
	const wanted = "redis-server"
	path, cache := alone(t)
	program(t, filepath.Join(cache, "redis", "bin", wanted), "Redis server v=7.0.15 sha=0:0")
	program(t, filepath.Join(cache, "redis", "lib", ".unpacked"), "")

	got, env, err := localserver.Find(wanted)
	if err != nil || got != filepath.Join(cache, "redis", "bin", wanted) {
		t.Errorf("in the cache only: %q, %v", got, err)
	}
	if want := "LD_LIBRARY_PATH=" + filepath.Join(cache, "redis", "lib"); len(env) != 1 || !strings.HasPrefix(env[0], want) {
		t.Errorf("environment %q, want %q", env, want)
	}

	program(t, filepath.Join(path, wanted), "Redis server v=6.2.1 sha=0:0")
	if got, _, _ := localserver.Find(wanted); !strings.HasPrefix(got, cache) {
		t.Errorf("one that is too old was preferred: %q", got)
	}
	program(t, filepath.Join(path, wanted), "Redis server v=8.0.0 sha=0:0")
	got, env, err = localserver.Find(wanted)
	if err != nil || !strings.HasPrefix(got, path) || len(env) != 0 {
		t.Errorf("in PATH: %q %q %v", got, env, err)
	}
}

func TestFindPostgresWantsAWholeInstallation(t *testing.T) {
	path, _ := alone(t)
	program(t, filepath.Join(path, "postgres"), "postgres (PostgreSQL) 99.1")
	program(t, filepath.Join(path, "initdb"), "initdb (PostgreSQL) 99.1")
	got, _, err := localserver.Find("initdb")
	if strings.HasPrefix(got, path) {
		t.Errorf("took %s, where pg_basebackup is missing (%v)", got, err)
	}
	program(t, filepath.Join(path, "pg_basebackup"), "pg_basebackup (PostgreSQL) 99.1")
	if got, _, err := localserver.Find("initdb"); got != filepath.Join(path, "initdb") {
		t.Errorf("found %q, %v", got, err)
	}
	program(t, filepath.Join(path, "postgres"), "postgres (PostgreSQL) 14.9")
	if got, _, _ := localserver.Find("initdb"); strings.HasPrefix(got, path) {
		t.Errorf("took version 14")
	}
}

func TestFindSaysWhatToRun(t *testing.T) {
	alone(t)
	_, _, err := localserver.Find("no-such-server")
	if !errors.Is(err, localserver.ErrNotInstalled) {
		t.Fatalf("error = %v", err)
	}
	for _, part := range []string{"scripts/install-servers", "no-such-server"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}
