package main_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// query runs one statement on a server of the platform and returns its first column as text.
func query(t *testing.T, url, sql string, args ...any) (text string) {
	t.Helper()
	text, err := ask(t, url, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func ask(t *testing.T, url, sql string, args ...any) (text string, err error) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql, args...).Scan(&text)
	return text, err
}

// pauseReplay holds all replicas back, or lets them go on.
func pauseReplay(t *testing.T, s lead.Platform, pause bool) {
	t.Helper()
	sql := `SELECT pg_wal_replay_resume()::text`
	if pause {
		sql = `SELECT pg_wal_replay_pause()::text`
	}
	for _, url := range s.Replicas {
		// What resumes replay may be cancelled by it.
		if _, err := ask(t, url, sql); err != nil && (pause || !pgcluster.Conflicted(err)) {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// postmaster finds the process id of a PostgreSQL server on this machine.
func postmaster(t *testing.T, url string) int {
	t.Helper()
	blob, err := os.ReadFile(filepath.Join(query(t, url, "SHOW data_directory"), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(blob, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// redisInfo asks one Redis server for a field of INFO.
func redisInfo(t *testing.T, addr, field string) string {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer rdb.Close()
	info, err := rdb.Info(context.WithoutCancel(t.Context())).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("INFO of %s has no %s", addr, field)
	return ""
}

func redisPID(t *testing.T, addr string) int {
	t.Helper()
	pid, err := strconv.Atoi(redisInfo(t, addr, "process_id"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// redisProcess returns the process and directory of a server that answers.
func redisProcess(t *testing.T, addr string) (pid int, directory string, ok bool) {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer rdb.Close()
	config, err := rdb.ConfigGet(context.WithoutCancel(t.Context()), "dir").Result()
	if err != nil {
		return 0, "", false
	}
	return redisPID(t, addr), config["dir"], true
}

// killRedisMaster kills the master that holds key's slot, the worst one for whoever uses it.
func killRedisMaster(t *testing.T, s lead.Platform, key string) {
	t.Helper()
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: s.Redis})
	defer rdb.Close()
	master, err := rdb.MasterForKey(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(master.Options().Addr)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, redisPID(t, net.JoinHostPort(host, port)))
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
