package main_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// build makes the program and, in the same directory, those that are named.
func build(t *testing.T, others ...string) (program string) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", append([]string{"build", "-o", dir, "."}, others...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "incident")
}

// The story ends well only if every step has happened: the program waits for each and counts at the end.
func TestIncident(t *testing.T) {
	program := build(t, "../leadplatform", "../leadapi", "../leadworker")
	t.Run("told", func(t *testing.T) { told(t, program) })
	t.Run("killed", func(t *testing.T) { killed(t, program) })
}

func told(t *testing.T, program string) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), "PORT=0", "ADMIN_ADDR=127.0.0.1:0")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, told := range []string{
		"alert  QueueDepthHigh critical", "bottleneck  ", "5 workers", "extend cache TTLs: done", "pause low-priority: done", "held: ",
		"the first replica is promoted", "pause low-priority: undone", "extend cache TTLs: undone", "people write again", "QueueDepthHigh is resolved", " are scored: no job was lost",
	} {
		if !strings.Contains(out.String(), told) {
			t.Errorf("nothing is told of %q", told)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// Killed, it takes its platform along.
func killed(t *testing.T, program string) {
	dir, err := os.MkdirTemp("", "incident-test-") // for what a killed program cannot remove
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL may run as another user
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "PORT=0", "ADMIN_ADDR=127.0.0.1:0", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for lines := bufio.NewScanner(out); address == "" && lines.Scan(); {
		if _, rest, ok := strings.Cut(lines.Text(), "console  http://"); ok {
			address = strings.TrimSuffix(rest, "/")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if address == "" {
		t.Fatal("it told of no console")
	}
	for deadline := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the platform runs on")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Without its platform it says what to do.
func TestWithoutThePlatform(t *testing.T) {
	out, err := exec.Command(build(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make incident") {
		t.Errorf("%v: %s", err, out)
	}
}
