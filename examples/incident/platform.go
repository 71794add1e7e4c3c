package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// thresholds make alerts fire within seconds, so that the story fits into two minutes; the values are the runbook's but
// for the queue's, which a small machine reaches.
//
//go:embed thresholds.json
var thresholds []byte

// platform is a running leadplatform.
type platform struct {
	state lead.Platform
	path  string
	dir   string
	cmd   *exec.Cmd
	done  chan error
	// lifeline is the platform's input: it ends when this process does, however that is, and the platform with it.
	lifeline io.Closer
}

func startPlatform(ctx context.Context) (_ *platform, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(filepath.Dir(self), "leadplatform")
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("leadplatform is missing beside this program, run make incident, which builds both: %w", err)
	}
	p := &platform{done: make(chan error, 1)}
	if p.dir, err = os.MkdirTemp("", "incident-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	p.path = filepath.Join(p.dir, "state.json")
	rules := filepath.Join(p.dir, "thresholds.json")
	if err := os.WriteFile(rules, thresholds, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-rate", "20", "-state", p.path) //nolint:noctx // stopped in order by stop
	cmd.Env = append(os.Environ(), "THRESHOLDS="+rules, "ALERT_WINDOW=10s", "ALERT_INTERVAL=2s", lead.ChildVariable+"=1")
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard       // this program does the talking
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is for this program, which stops it in order
	if p.lifeline, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.cmd = cmd
	go func() { p.done <- cmd.Wait() }()
	return p, until(ctx, "the platform is up", func(context.Context) (bool, error) {
		select {
		case err := <-p.done:
			p.done <- err
			return false, fmt.Errorf("the platform has ended: %w", err)
		default:
		}
		if err := p.read(); err != nil {
			return false, nil
		}
		return len(p.state.Processes) == 5 && p.state.Up(), nil
	})
}

// read takes in what leadplatform says of itself.
func (p *platform) read() error {
	state, err := lead.ReadPlatform(p.path)
	if err == nil {
		p.state = state
	}
	return err
}

// stop ends the platform, which leaves nothing behind.
func (p *platform) stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(30 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	if err := os.RemoveAll(p.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "incident:", err)
	}
}
