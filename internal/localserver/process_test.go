package localserver_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

func open(t *testing.T) *localserver.Home {
	t.Helper()
	home, err := localserver.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Close(); err != nil {
			t.Error(err)
		}
	})
	return home
}

func TestFreezeAndThaw(t *testing.T) {
	home := open(t)
	p, addr := startServer(home)
	child := childOf(p)
	p.Freeze()
	if answers(addr) {
		t.Error("a frozen server answered")
	}
	if stat, _ := os.ReadFile("/proc/self/stat"); stat != nil {
		if !eventually(func() bool { return strings.Contains(status(t, child), ") T ") }) {
			t.Error("the child in another session was not frozen")
		}
	}
	p.Thaw()
	if !eventually(func() bool { return answers(addr) }) {
		t.Error("a thawed server does not answer")
	}
}

func status(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKillTakesTheFamilyEvenFrozen(t *testing.T) {
	home := open(t)
	p, addr := startServer(home)
	child := childOf(p)
	p.Freeze()
	p.Kill()
	if runs(p.Pid()) || runs(child) {
		t.Error("the server or its child still runs")
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling a killed server: %v", err)
	}
	var exit *exec.ExitError
	if err := p.Wait(t.Context()); !errors.As(err, &exit) {
		t.Errorf("Wait = %v", err)
	}
	p.Kill() // nothing is there, nothing happens
	p.Freeze()
	p.Thaw()
}

func TestStopKillsTheStubborn(t *testing.T) {
	home := open(t)
	p, _ := startServer(home, "STUBBORN=yes")
	child := childOf(p)
	start := time.Now()
	p.Stop(50 * time.Millisecond)
	if runs(p.Pid()) || runs(child) {
		t.Error("it still runs")
	}
	if took := time.Since(start); took < 50*time.Millisecond {
		t.Errorf("it had %v instead of the timeout", took)
	}
}

func TestPortIsKeptWhileItsServerIsDown(t *testing.T) {
	home := open(t)
	p, addr := startServer(home)
	p.Kill()
	if runtime.GOOS == "linux" {
		// The kernel gives a port away under the rules of a socket without SO_REUSEADDR.
		stranger := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
			return conn.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
			})
		}}
		if l, err := stranger.Listen(t.Context(), "tcp", addr); err == nil {
			l.Close()
			t.Error("somebody else got the port")
		}
	}
	again, err := home.Start(t.Context(), config(addr))
	if err != nil {
		t.Fatal(err)
	}
	if !eventually(func() bool { return answers(addr) }) {
		t.Errorf("it did not come back on its port: %s", again.Log())
	}
}

func TestRunReportsTheOutput(t *testing.T) {
	home := open(t)
	sh := func(script string) error {
		return home.Run(t.Context(), localserver.Config{Name: "sh", Path: "/bin/sh", Args: []string{"-c", script}})
	}
	if err := sh("exit 0"); err != nil {
		t.Error(err)
	}
	err := sh("echo the reason >&2; exit 4")
	if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "4") {
		t.Errorf("error = %v", err)
	}
}

func TestDropRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can drop it")
	}
	home, err := localserver.Open(&localserver.Options{DropRoot: true})
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	dir, err := home.Mkdir("data")
	if err != nil {
		t.Fatal(err)
	}
	err = home.Run(t.Context(), localserver.Config{
		Name: "sh", Path: "/bin/sh", Dir: dir,
		Args: []string{"-c", `test "$(id -u)" != 0 && echo mine > file && test -O file`},
	})
	if err != nil {
		t.Error(err)
	}
}
