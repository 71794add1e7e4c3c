package main_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// blockTimeout is for what hangs, not for a program that is compiled first on a machine that has much else to do.
const blockTimeout = 10 * time.Minute

// shell is one bash that runs blocks of commands in order, as somebody would paste them into a terminal; but it stops at the first
// command that fails.
type shell struct {
	dir  string
	in   io.Writer
	done chan string
}

func newShell(t *testing.T, p *platform) *shell {
	t.Helper()
	bin := link(t, p)
	s := &shell{dir: t.TempDir(), done: make(chan string)}
	cmd := exec.Command("bash", "--noprofile", "--norc")
	cmd.Dir = "../.."
	state := p.state(t)
	// TARGET and ADMIN are the Makefile's, for the targets that call a running platform.
	// What a make above has set would make another print where it is.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=") })
	cmd.Env = append(env, "TERM=dumb", "PGCONNECT_TIMEOUT=10", "TARGET="+state.API, "ADMIN="+state.Admin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.in = in
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.done <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what a block left in the background, too
		for range s.done {
		}
		_ = cmd.Wait()
	})
	// In the document the programs are in bin/.
	programs, err := os.ReadDir(bin)
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range programs {
		if filepath.Ext(program.Name()) == "" {
			fmt.Fprintf(s.in, "bin/%s() { '%s' \"$@\"; }\n", program.Name(), filepath.Join(bin, program.Name()))
		}
	}
	return s
}

// run runs a block and returns its standard output, and what went wrong.
func (s *shell) run(body string) (printed, failure string) {
	script, stdout, stderr := filepath.Join(s.dir, "block"), filepath.Join(s.dir, "stdout"), filepath.Join(s.dir, "stderr")
	if err := os.WriteFile(script, []byte(body), 0o600); err != nil {
		return "", err.Error()
	}
	fmt.Fprintf(s.in, "set -eo pipefail; source '%s' </dev/null >'%s' 2>'%s'; echo done\n", script, stdout, stderr)
	select {
	case line, ok := <-s.done:
		if !ok {
			failure = "a command failed"
		} else if line != "done" {
			failure = "unexpected: " + line
		}
	case <-time.After(blockTimeout):
		failure = "still running after " + blockTimeout.String()
	}
	out, _ := os.ReadFile(stdout)
	if failure != "" {
		errs, _ := os.ReadFile(stderr)
		failure += "\n" + strings.TrimSpace(string(errs))
	}
	return string(out), failure
}
