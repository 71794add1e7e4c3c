package localserver

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Config says which server [Home.Start] runs.
type Config struct {
	// Name is the server's name in messages and the stem of its log's file
	// name; a server started again under its name appends to its log. Required.
	Name string

	// Path is the program. Required; see [Find].
	Path string

	// Args are the program's arguments. Zero means none.
	Args []string

	// Env is added to this process's environment. Zero means nothing is.
	Env []string

	// Dir is the working directory. Zero means the home's.
	Dir string

	// StopSignal asks the server to end, in [Process.Stop] and when the home
	// is closed. Zero means SIGTERM.
	StopSignal syscall.Signal
}

// A Process is a running server. It leads a session of its own.
type Process struct {
	cfg     Config
	home    *Home
	cmd     *exec.Cmd
	logPath string
	done    chan struct{}
	err     error // how it ended; set before done is closed

	mu sync.Mutex // held while signals are sent, so that families do not change under us
}

// Start runs a server and returns at once; what "ready" means is the caller's
// to find out, together with [Process.Done].
func (h *Home) Start(ctx context.Context, cfg Config) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("localserver: start %s: %w", cfg.Name, err)
	}
	if cfg.StopSignal == 0 {
		cfg.StopSignal = syscall.SIGTERM
	}
	if cfg.Dir == "" {
		cfg.Dir = h.dir
	}
	p := &Process{cfg: cfg, home: h, logPath: filepath.Join(h.dir, cfg.Name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("localserver: start %s: %w", cfg.Name, err)
	}
	defer log.Close()

	// The process tells the watchdog of itself before it becomes the server:
	// there is no moment at which our death would leave it behind.
	const introduce = `echo "+ $$ $1" >&3 && shift && exec "$@" 3>&-`
	args := append([]string{"-c", introduce, "sh", fmt.Sprint(int(cfg.StopSignal)), cfg.Path}, cfg.Args...)
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir = cfg.Dir
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A session, not only a process group: the kernel sends SIGHUP to a stopped
	// group of a session whose last parent dies, before the watchdog looks.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: h.user}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pipe == nil {
		return nil, fmt.Errorf("localserver: start %s: the home is closed", cfg.Name)
	}
	cmd.ExtraFiles = []*os.File{h.pipe}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("localserver: start %s: %w", cfg.Name, err)
	}
	p.cmd = cmd
	h.processes = append(h.processes, p)
	go p.reap()
	return p, nil
}

func (p *Process) reap() {
	p.err = p.cmd.Wait()
	p.home.tell("- %d\n", p.Pid())
	close(p.done)
}

// Run runs a program of the home's user to its end, as initdb. The error
// holds the end of its output.
func (h *Home) Run(ctx context.Context, cfg Config) error {
	p, err := h.Start(ctx, cfg)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("localserver: %s: %w", cfg.Name, ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("localserver: %s: %w\n%s", cfg.Name, p.err, p.Log())
	}
	return nil
}

// Name is the configured one.
func (p *Process) Name() string { return p.cfg.Name }

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and been reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end and returns how it came about: nil for exit status 0,
// an *exec.ExitError otherwise, or the context's error.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop sends StopSignal, thawing the server first, and SIGKILL to all that
// still run after the timeout. It returns when the server has ended.
func (p *Process) Stop(timeout time.Duration) {
	p.Thaw()
	p.Signal(p.cfg.StopSignal)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
	}
}

// Log is the end of the server's output, at most 64 KiB.
func (p *Process) Log() string {
	const most = 64 << 10
	f, err := os.Open(p.logPath)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return "(no log: " + err.Error() + ")"
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	return string(text)
}
