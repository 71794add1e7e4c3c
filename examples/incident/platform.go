package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// thresholds make alerts fire within seconds, so that the story fits into two minutes; the values are the runbook's but
// for the queue's, which a small machine reaches.
//
//go:embed thresholds.json
var thresholds []byte

// platform is a running leadplatform.
type platform struct {
	state state
	path  string
	dir   string
	cmd   *exec.Cmd
	done  chan error
}

// state is what leadplatform keeps in its -state file.
type state struct {
	API       string
	Admin     string
	Processes []struct {
		Name string
		PID  int
	}
	Primary  string
	Replicas []string
	Redis    []string
}

func (s state) workers() (n int) {
	for _, p := range s.Processes {
		if strings.HasPrefix(p.Name, "worker") && p.PID != 0 {
			n++
		}
	}
	return n
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
	cmd.Env = append(os.Environ(), "THRESHOLDS="+rules, "ALERT_WINDOW=10s", "ALERT_INTERVAL=2s")
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard       // this program does the talking
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the terminal is for this program, which stops it in order
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
		up := 0
		for _, process := range p.state.Processes {
			if process.PID != 0 {
				up++
			}
		}
		return up == 5, nil
	})
}

// read takes in what leadplatform says of itself.
func (p *platform) read() error {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &p.state)
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
