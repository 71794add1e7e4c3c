package main_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// binary and apiBinary are programs under test, built once as make demo does, with the race detector when the tests have it.
var binary, apiBinary string

func TestMain(m *testing.M) { goleak.VerifyTestMain(ownRedis.Around(ownPostgres.Around(built{m}))) }

type built struct{ m *testing.M }

func (b built) Run() int {
	dir, err := os.MkdirTemp("", "leadplatform-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary, apiBinary = filepath.Join(dir, "leadplatform"), filepath.Join(dir, "leadapi")
	args := []string{"build", "-o", dir}
	if raceDetector {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".", "../leadapi", "../leadworker")...).CombinedOutput(); err != nil {
		panic(string(out))
	}
	return b.m.Run()
}

// platform is a running leadplatform.
type platform struct {
	cmd    *exec.Cmd
	path   string
	output lockedBuffer
	done   chan struct{}
	err    error
}

// start runs the program with servers of its own until the test ends.
func start(t *testing.T, args ...string) *platform {
	t.Helper()
	p := &platform{path: filepath.Join(t.TempDir(), "state.json"), done: make(chan struct{})}
	p.cmd = exec.Command(binary, append(args, "-state", p.path)...)
	p.cmd.Env = append(os.Environ(), "PORT=0", "ADMIN_ADDR=127.0.0.1:0", "GORACE=halt_on_error=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(60 * time.Second):
			t.Error("the platform did not stop")
			p.signal(syscall.SIGKILL)
			<-p.done
		}
		if t.Failed() {
			t.Logf("output of the platform:\n%s", p.output.String())
		}
		if bytes.Contains(p.output.Bytes(), []byte("DATA RACE")) {
			t.Errorf("data race:\n%s", p.output.String())
		}
	})
	eventually(t, 90*time.Second, "all processes up", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the platform ended: %v", p.err)
		default:
		}
		s, err := p.read()
		return err == nil && len(s.Processes) == 5 && s.Up() && bytes.Contains(p.output.Bytes(), []byte("Ctrl-C"))
	})
	// A busy machine is slow to open all connections at once.
	s := p.state(t)
	c := newClient(t, s.API, "first")
	for _, api := range s.APIs() {
		eventually(t, 60*time.Second, "a write through "+api, func() bool { _, status := c.create(api); return status == http.StatusCreated })
	}
	return p
}

func (p *platform) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

func (p *platform) read() (lead.Platform, error) { return lead.ReadPlatform(p.path) }

func (p *platform) state(t *testing.T) lead.Platform {
	t.Helper()
	s, err := p.read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pidOf(t *testing.T, s lead.Platform, name string) int {
	t.Helper()
	for _, process := range s.Processes {
		if process.Name == name && process.PID != 0 {
			return process.PID
		}
	}
	t.Fatalf("no process %s", name)
	return 0
}

// eventually polls, because what it waits for happens in other processes.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", within, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// gone reports whether a process has ended; a zombie has.
func gone(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z"))
}

// lockedBuffer is written by the child's copier and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

func (l *lockedBuffer) String() string { return string(l.Bytes()) }
