package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// statementTimeout is longer than pg_promote() waits.
const statementTimeout = 70 * time.Second

// ask runs one statement on one server and reads one value.
func ask[T any](ctx context.Context, url, sql string, args ...any) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return value, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return value, conn.QueryRow(ctx, sql, args...).Scan(&value)
}

// do runs statements on one server.
func do(ctx context.Context, url string, statements ...string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// caughtUp reports whether a replica has replayed all that the primary has written.
func caughtUp(ctx context.Context, primary, replica string) (bool, error) {
	end, err := ask[string](ctx, primary, `SELECT pg_current_wal_lsn()::text`)
	if err != nil {
		return false, err
	}
	return ask[bool](ctx, replica, `SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, end)
}

// kill ends a server as a broken machine does.
func kill(ctx context.Context, url string) error {
	dir, err := ask[string](ctx, url, `SELECT current_setting('data_directory')`)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// follow makes a replica stream from another server than before.
func follow(ctx context.Context, replica, primary string) error {
	slot, err := ask[string](ctx, replica, `SELECT current_setting('primary_slot_name')`)
	if err != nil {
		return err
	}
	if slot != "" {
		if err := do(ctx, primary, fmt.Sprintf(`SELECT pg_create_physical_replication_slot('%s')`, slot)); err != nil {
			return err
		}
	}
	c, err := pgx.ParseConfig(primary)
	if err != nil {
		return err
	}
	info := fmt.Sprintf("host=%s port=%d user=%s application_name=%s", c.Host, c.Port, c.User, slot)
	return do(ctx, replica, `ALTER SYSTEM SET primary_conninfo = '`+info+`'`, `SELECT pg_reload_conf()`)
}
