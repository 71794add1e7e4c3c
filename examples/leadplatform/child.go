package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyEnv tells a child that descriptor 3 awaits its addresses, and that the end of its input is the end of its parent.
const readyEnv = "LEADPLATFORM_CHILD"

// Addresses are where a process listens.
type Addresses struct {
	API   string `json:"api,omitempty"`
	Admin string `json:"admin,omitempty"`
}

// Child is one API instance or worker in a process of its own. When it dies unasked it is started anew, as an
// orchestrator would do.
type Child struct {
	Name string
	role string
	env  []string
	log  *slog.Logger

	mu        sync.Mutex
	addresses Addresses
	process   *os.Process
}

// restartPause keeps a child that cannot start from spinning.
const restartPause = 500 * time.Millisecond

// Run keeps the child alive until ctx ends, then asks it to stop and waits.
func (c *Child) Run(ctx context.Context, changed func()) error {
	for {
		err := c.once(ctx, changed)
		if ctx.Err() != nil {
			return nil
		}
		c.log.Warn("process ended unasked, starting it anew", "name", c.Name, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartPause):
		}
	}
}

func (c *Child) once(ctx context.Context, changed func()) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ready, readyWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()

	cmd := exec.CommandContext(ctx, self, c.role)
	cmd.Env = append(append(os.Environ(), c.env...), readyEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{readyWriter}
	// In a group of its own, a Ctrl-C at the terminal reaches the parent only, which stops all in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	// Never written to: the child reads it and stops at its end, so it cannot outlive this process.
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer lifeline.Close()

	err = cmd.Start()
	readyWriter.Close()
	if err != nil {
		return err
	}
	var addresses Addresses
	err = json.NewDecoder(ready).Decode(&addresses)
	if err == nil {
		c.set(cmd.Process, addresses)
		changed()
	}
	waitErr := cmd.Wait()
	c.set(nil, Addresses{})
	changed()
	if err != nil && waitErr == nil {
		return fmt.Errorf("%s ended before it listened: %w", c.Name, err)
	}
	return waitErr
}

func (c *Child) set(p *os.Process, a Addresses) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.addresses = p, a
}

// Addresses returns where the child listens, and its process id; zero values while it is down.
func (c *Child) Addresses() (a Addresses, pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		pid = c.process.Pid
	}
	return c.addresses, pid
}

// announce tells the parent, if there is one, where this process listens.
func announce(a Addresses) error {
	if os.Getenv(readyEnv) == "" {
		return nil
	}
	ready := os.NewFile(3, "ready")
	defer ready.Close()
	return json.NewEncoder(ready).Encode(a)
}

// withLifeline returns a context that ends with the parent, if there is one.
func withLifeline(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(readyEnv) != "" {
		go func() {
			defer cancel()
			// Nothing is ever written; the read ends when the parent does.
			_, _ = io.Copy(io.Discard, os.Stdin)
		}()
	}
	return ctx, cancel
}

func env(pairs map[string]string) []string {
	var out []string
	for name, value := range pairs {
		out = append(out, strings.Join([]string{name, value}, "="))
	}
	return out
}
