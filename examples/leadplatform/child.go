package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// Child is one API instance or worker in a process of its own. When it dies unasked it is started anew, as an
// orchestrator would do.
type Child struct {
	Name    string
	program string // its path
	env     []string
	log     *slog.Logger

	mu        sync.Mutex
	addresses lead.Addresses
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
	ready, readyWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()

	cmd := exec.CommandContext(ctx, c.program)
	cmd.Env = append(append(os.Environ(), c.env...), lead.ChildVariable+"=1")
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
	var addresses lead.Addresses
	err = json.NewDecoder(ready).Decode(&addresses)
	if err == nil {
		c.set(cmd.Process, addresses)
		changed()
	}
	waitErr := cmd.Wait()
	c.set(nil, lead.Addresses{})
	changed()
	if err != nil && waitErr == nil {
		return fmt.Errorf("%s ended before it listened: %w", c.Name, err)
	}
	return waitErr
}

func (c *Child) set(p *os.Process, a lead.Addresses) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.addresses = p, a
}

// Addresses returns where the child listens, and its process id; zero values while it is down.
func (c *Child) Addresses() (a lead.Addresses, pid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		pid = c.process.Pid
	}
	return c.addresses, pid
}
