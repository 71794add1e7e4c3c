package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/localserver"
)

// platform is one `make demo` for all tests of this package.
var platform = localserver.NewShared(startDemo)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(postgres.Around(redisServers.Around(platform.Around(m))))
}

// demo is a running leadplatform, built and started as make demo does it, on ports that the system chose.
type demo struct {
	lead.Platform

	dir    string
	cmd    *exec.Cmd
	output lockedBuffer
	done   chan struct{}
}

func (d *demo) place() Place { return Place{Target: d.API, Admin: d.Admin} }

// startDemo builds without the race detector: the tests of the platform have it, here it would only take time from the load. It
// has a deadline of its own: on a busy machine the build alone takes longer than servers should.
func startDemo(context.Context) (_ *demo, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	d := &demo{done: make(chan struct{})}
	if d.dir, err = os.MkdirTemp("", "loadtest-"); err != nil {
		return nil, err
	}
	programs, err := filepath.Glob("../lead*/main.go") // the platform and what it starts
	if err != nil {
		return nil, err
	}
	args := []string{"build", "-o", d.dir + "/"}
	for _, program := range programs {
		args = append(args, filepath.Dir(program))
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	state := filepath.Join(d.dir, "state.json")
	d.cmd = exec.Command(filepath.Join(d.dir, "leadplatform"), "-state", state, "-rate", "10")
	d.cmd.Env = append(os.Environ(), "PORT=0", "ADMIN_ADDR=127.0.0.1:0")
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = d.cmd.Wait(); close(d.done) }()
	for !bytes.Contains(d.output.bytes(), []byte("Ctrl-C")) {
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), d.Close(), errors.New(d.Logs()))
		case <-d.done:
			return nil, errors.New(d.Logs())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if d.Platform, err = lead.ReadPlatform(state); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	// A busy machine is slow to open all connections at once.
	for {
		var out bytes.Buffer
		if err := smoke(ctx, &out, d.place(), nil); err == nil {
			return d, nil
		} else if ctx.Err() != nil {
			return nil, errors.Join(err, d.Close(), errors.New(out.String()+d.Logs()))
		}
	}
}

// Close ends it as Ctrl-C does.
func (d *demo) Close() error {
	defer os.RemoveAll(d.dir)
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(60 * time.Second):
		return errors.Join(errors.New("the platform did not stop"), d.cmd.Process.Kill())
	}
}

func (d *demo) Logs() string { return string(d.output.bytes()) }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}
