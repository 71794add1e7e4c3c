package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The story ends well only if every step has happened: the program waits for each and counts at the end.
func TestIncident(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, ".", "../leadplatform", "../leadapi", "../leadworker").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "incident"))
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
		"the first replica is promoted", "pause low-priority: undone", "people write again", "QueueDepthHigh is resolved", " are scored: no job was lost",
	} {
		if !strings.Contains(out.String(), told) {
			t.Errorf("nothing is told of %q", told)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// Without its platform it says what to do.
func TestWithoutThePlatform(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(filepath.Join(dir, "incident")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "make incident") {
		t.Errorf("%v: %s", err, out)
	}
}
