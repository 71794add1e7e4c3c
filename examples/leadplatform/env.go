package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/localserver"
)

func runEnv(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("leadplatform env", flag.ContinueOnError)
	state := flags.String("state", "", "the file that the demo was given by the same name; empty means demo.json beside this program")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return printEnv(ctx, os.Stdout, *state)
}

// printEnv writes what a second terminal needs to work on the running demo, for bash's eval: the addresses under the names
// of the environment, and the servers' own programs where they are not in PATH.
func printEnv(ctx context.Context, w io.Writer, path string) error {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		path = filepath.Join(filepath.Dir(self), "demo.json") // where make demo has it
	}
	s, err := running(path)
	if err != nil {
		return err
	}
	var management []string
	for _, p := range s.Processes {
		if p.Admin != "" {
			management = append(management, p.Admin)
		}
	}
	variables := [][2]string{
		{"DATABASE_URL_PRIMARY", s.Primary}, {"DATABASE_URL_REPLICA", strings.Join(s.Replicas, ",")},
		{"REDIS_ADDRS", strings.Join(s.Redis, ",")}, {"INSTANCES", strings.Join(management, " ")},
	}
	for n, replica := range s.Replicas {
		variables = append(variables, [2]string{fmt.Sprintf("REPLICA_%d", n+1), replica})
	}
	if len(s.Redis) > 0 {
		variables = append(variables, [2]string{"REDIS_NODE", s.Redis[0]})
	}
	spare, owner, err := makeSpare(ctx, append([]string{s.Primary}, s.Replicas...))
	if err != nil {
		return err
	}
	for _, v := range append(variables, [2]string{"SPARE", spare}) {
		fmt.Fprintf(w, "export %s=%s\n", v[0], quoted(v[1]))
	}
	psql, libraries, err := localserver.Find("psql")
	fmt.Fprint(w, program("psql", psql, libraries, err, nil))
	for name, as := range map[string]*syscall.Stat_t{"pg_basebackup": owner, "pg_ctl": owner, "pg_dump": nil, "pg_restore": nil} { // of the same installation
		fmt.Fprint(w, program(name, filepath.Join(filepath.Dir(psql), name), libraries, err, as))
	}
	redisCLI, libraries, err := localserver.Find("redis-cli")
	fmt.Fprint(w, program("redis-cli", redisCLI, libraries, err, nil))
	return nil
}

// running reads the file of a demo that runs.
func running(path string) (p lead.Platform, err error) {
	if p, err = lead.ReadPlatform(path); err == nil {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", strings.TrimPrefix(p.Admin, "http://"), time.Second); err == nil {
			err = conn.Close()
		}
	}
	if err != nil {
		return p, fmt.Errorf("no demo runs here, start it by make demo: %w", err)
	}
	return p, nil
}

// makeSpare makes a directory for one more PostgreSQL server beside the demo's own, with which it vanishes.
func makeSpare(ctx context.Context, servers []string) (dir string, owner *syscall.Stat_t, err error) {
	var data string
	var errs []error
	for _, url := range servers { // not all of them may be up
		if data, err = dataDirectory(ctx, url); err == nil {
			break
		}
		errs = append(errs, err)
	}
	if data == "" {
		return "", nil, errors.Join(errs...)
	}
	info, err := os.Stat(data)
	if err != nil {
		return "", nil, fmt.Errorf("PostgreSQL is not on this machine: %w", err)
	}
	owner = info.Sys().(*syscall.Stat_t)
	dir = filepath.Join(filepath.Dir(data), "spare")
	if err = os.MkdirAll(dir, 0o700); err == nil {
		err = os.Chown(dir, int(owner.Uid), int(owner.Gid))
	}
	return dir, owner, err
}

func dataDirectory(ctx context.Context, url string) (data string, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, "SHOW data_directory").Scan(&data)
	return data, errors.Join(err, conn.Close(ctx))
}

// program defines a shell function for a server's program, which was found at path or not at all, when it is not in PATH, or
// when it is to run as owner, because it refuses root or would leave files of root's to a server that is not root; nothing for
// others.
func program(name, path string, env []string, err error, owner *syscall.Stat_t) string {
	if err != nil {
		return fmt.Sprintf("%s() { echo %s >&2; return 127; }\n", name, quoted(err.Error()))
	}
	words := []string{"env"}
	for _, e := range env {
		words = append(words, quoted(e))
	}
	if owner != nil && os.Geteuid() == 0 {
		words = append(words, "setpriv", fmt.Sprintf("--reuid=%d --regid=%d --clear-groups", owner.Uid, owner.Gid))
	} else if known, err := exec.LookPath(name); err == nil && known == path {
		return ""
	}
	return fmt.Sprintf("%s() { %s %s \"$@\"; }\n", name, strings.Join(words, " "), quoted(path))
}

// quoted makes one word of the shell's of any text.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
