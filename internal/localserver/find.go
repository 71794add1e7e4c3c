package localserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// ErrNotInstalled is matched by the error of [Find] when no suitable program
// is on this machine.
var ErrNotInstalled = errors.New("localserver: not installed: run scripts/install-servers")

// The oldest major versions that serve.
const (
	oldestPostgres = 15
	oldestRedis    = 7
)

// Find locates a program: in PATH, where distributions keep PostgreSQL's, and
// in the folders that scripts/install-servers fills. Env is what the program
// needs in its environment, often nothing. PostgreSQL's programs are taken from
// one installation that has them all, the first in PATH or else the newest.
func Find(name string) (path string, env []string, err error) {
	switch name {
	case "postgres", "initdb", "pg_basebackup", "pg_ctl", "pg_isready", "psql":
		return findPostgres(name)
	}
	candidates := cached("*", name)
	if inPath, err := exec.LookPath(name); err == nil {
		candidates = append([]string{inPath}, candidates...)
	} else if name == "pgbouncer" || name == "nginx" {
		// Distributions keep them where only root's PATH looks.
		if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
			candidates = append([]string{path}, candidates...)
		}
	}
	var errs []error
	for _, path := range candidates {
		env := environment(path)
		if name == "redis-server" {
			if version, err := majorVersion(path, env); err != nil || version < oldestRedis {
				errs = append(errs, unsuitable(path, version, oldestRedis, err))
				continue
			}
		}
		return path, env, nil
	}
	return "", nil, notInstalled(name, errs)
}

func findPostgres(name string) (string, []string, error) {
	var errs []error
	var best string
	newest := 0
	consider := func(dir string) int {
		for _, needed := range []string{"postgres", "initdb", "pg_basebackup", name} {
			if _, err := exec.LookPath(filepath.Join(dir, needed)); err != nil {
				return 0 // a client's installation, or links to a part of one
			}
		}
		path := filepath.Join(dir, "postgres")
		version, err := majorVersion(path, environment(path))
		if err != nil || version < oldestPostgres {
			errs = append(errs, unsuitable(path, version, oldestPostgres, err))
			return 0
		}
		return version
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && consider(filepath.Dir(path)) > 0 {
			best = filepath.Dir(path)
		}
	}
	if best == "" {
		for _, dir := range postgresDirs() {
			if version := consider(dir); version > newest {
				best, newest = dir, version
			}
		}
	}
	if best == "" {
		return "", nil, notInstalled(name, errs)
	}
	path := filepath.Join(best, name)
	return path, environment(path), nil
}

func postgresDirs() []string {
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian
		"/usr/pgsql-*/bin",                   // the PostgreSQL project's RPMs
		"/usr/libexec/postgresql*",           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, Apple silicon
		"/usr/local/opt/postgresql@*/bin",    // Homebrew, Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	for _, path := range cached("postgres", "postgres") {
		dirs = append(dirs, filepath.Dir(path))
	}
	return dirs
}

// Faketime locates libfaketime, which, preloaded, stands between a program and the clock.
func Faketime() (path string, err error) {
	for _, pattern := range []string{
		"/usr/lib/*/faketime/libfaketime.so.1", // Debian
		"/usr/lib*/faketime/libfaketime.so.1",  // Fedora and Alpine
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0], nil
		}
	}
	if found := unpacked("faketime", "lib", "libfaketime.so.1"); len(found) > 0 {
		return found[0], nil
	}
	return "", notInstalled("libfaketime", nil)
}

// cached lists <folder>/<set>/bin/<name>.
func cached(set, name string) []string { return unpacked(set, "bin", name) }

// unpacked lists <folder>/<set>/<sub>/<name> for the folders into which
// scripts/install-servers unpacks: its default is a user's cache folder, and
// for root one that other users can enter.
func unpacked(set, sub, name string) []string {
	var folders []string
	if dir := os.Getenv("SCALEAWARE_SERVERS"); dir != "" {
		folders = append(folders, dir)
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		folders = append(folders, filepath.Join(dir, "scaleaware", "servers"))
	} else if home := os.Getenv("HOME"); home != "" {
		folders = append(folders, filepath.Join(home, ".cache", "scaleaware", "servers"))
	}
	folders = append(folders, "/var/cache/scaleaware/servers")
	var paths []string
	for _, folder := range folders {
		found, _ := filepath.Glob(filepath.Join(folder, set, sub, name))
		paths = append(paths, found...)
	}
	return paths
}

// environment points an unpacked program to the libraries unpacked with it.
func environment(path string) []string {
	lib := filepath.Join(filepath.Dir(filepath.Dir(path)), "lib") // has the mark .unpacked
	if info, err := os.Stat(filepath.Join(lib, ".unpacked")); err != nil || info.IsDir() {
		return nil
	}
	if have := os.Getenv("LD_LIBRARY_PATH"); have != "" {
		lib += ":" + have
	}
	return []string{"LD_LIBRARY_PATH=" + lib}
}

// "postgres (PostgreSQL) 15.18 (Debian …)", "Redis server v=7.0.15 sha=…".
var versionNumber = regexp.MustCompile(`(?:v=|\) )(\d+)`)

func majorVersion(path string, env []string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = append(os.Environ(), env...)
	text, err := cmd.Output()
	if err != nil {
		return 0, err
	}
	match := versionNumber.FindSubmatch(text)
	if match == nil {
		return 0, fmt.Errorf("no version in %q", text)
	}
	return strconv.Atoi(string(match[1]))
}

func unsuitable(path string, version, oldest int, err error) error {
	if err != nil {
		return fmt.Errorf("%s does not run: %w", path, err)
	}
	return fmt.Errorf("%s is version %d, and %d is needed", path, version, oldest)
}

func notInstalled(name string, errs []error) error {
	err := fmt.Errorf("%w (wanted: %s)", ErrNotInstalled, name)
	return errors.Join(append([]error{err}, errs...)...)
}
