package localserver

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

//go:embed watchdog.sh
var watchdogScript string

// Options says how a [Home] is made.
type Options struct {
	// Dir is the directory in which the home's directory is created.
	// Zero means the system's temporary directory.
	Dir string

	// DropRoot runs the servers as user postgres, or else nobody, when this
	// process is root, and gives them the directories that Mkdir makes. For
	// PostgreSQL, which refuses to run as root.
	// Zero means that servers run as this process does.
	DropRoot bool
}

// A Home is a temporary directory, the servers that live in it, and the
// watchdog that removes both when the home is closed or this process ends in
// whatever way. Methods may be called from several goroutines.
type Home struct {
	dir  string
	user *syscall.Credential // nil: this process's own

	mu        sync.Mutex
	pipe      *os.File // what the watchdog reads; nil once closed
	watchdog  *exec.Cmd
	ports     []io.Closer
	processes []*Process
}

// Open makes a home. Nil options are legal.
func Open(opts *Options) (*Home, error) {
	if opts == nil {
		opts = &Options{}
	}
	h := &Home{}
	base := opts.Dir
	if opts.DropRoot && os.Geteuid() == 0 {
		user, err := unprivileged()
		if err != nil {
			return nil, err
		}
		h.user = user
		if base == "" && !reachable(os.TempDir()) {
			base = "/tmp"
		}
	}
	dir, err := os.MkdirTemp(base, "scaleaware-")
	if err != nil {
		return nil, fmt.Errorf("localserver: no directory for the servers: %w", err)
	}
	if h.dir, err = filepath.Abs(dir); err == nil {
		err = os.Chmod(h.dir, 0o755) //nolint:gosec // another user's server lives in it
	}
	if err == nil {
		err = h.watch()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return h, nil
}

func (h *Home) watch() error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("localserver: no pipe for the watchdog: %w", err)
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "scaleaware-watchdog", h.dir)
	cmd.Dir = "/"
	cmd.Stdin = read
	// A session of its own: an interrupt from the terminal must not reach it.
	// No output either: go test waits for whoever holds its standard output.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		write.Close()
		return fmt.Errorf("localserver: start the watchdog: %w", err)
	}
	h.pipe, h.watchdog = write, cmd
	return nil
}

// Dir is the home's directory, absolute.
func (h *Home) Dir() string { return h.dir }

// Mkdir makes a directory in the home, owned by the user that servers run as
// and closed to others, and returns its absolute path.
func (h *Home) Mkdir(name string) (string, error) {
	dir := filepath.Join(h.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("localserver: %w", err)
	}
	if h.user != nil {
		if err := os.Chown(dir, int(h.user.Uid), int(h.user.Gid)); err != nil {
			return "", fmt.Errorf("localserver: %w", err)
		}
	}
	return dir, nil
}

// Port returns a free TCP port of 127.0.0.1. On Linux it stays reserved for
// this home's servers until the home is closed.
func (h *Home) Port() (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	port, hold, err := reserve()
	if err != nil {
		return 0, fmt.Errorf("localserver: no free port: %w", err)
	}
	if hold != nil {
		h.ports = append(h.ports, hold)
	}
	return port, nil
}

// Close ends every server of the home, by the signal that its [Config] names
// and by SIGKILL two seconds later, and removes the directory. It may be called
// more than once.
func (h *Home) Close() error {
	h.mu.Lock()
	pipe := h.pipe
	h.pipe = nil
	h.mu.Unlock()
	if pipe == nil {
		return nil
	}
	pipe.Close()
	// The watchdog cleans up in this case too, so that its work is tried each time.
	err := h.watchdog.Wait()
	for _, p := range h.processes {
		<-p.done
	}
	for _, hold := range h.ports {
		hold.Close()
	}
	if err != nil {
		return fmt.Errorf("localserver: clean up %s: %w", h.dir, err)
	}
	return nil
}

// tell sends the watchdog a line. Short lines are written to a pipe at once.
func (h *Home) tell(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pipe != nil {
		fmt.Fprintf(h.pipe, format, args...)
	}
}
