package localserver_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Whatever ends the process that started a server: server, its child in
// another session and the directory vanish.
func TestNothingSurvivesTheStarter(t *testing.T) {
	for name, end := range map[string]func(*exec.Cmd) error{
		"panic":     func(*exec.Cmd) error { return nil },
		"exit":      func(*exec.Cmd) error { return nil },
		"killed":    func(c *exec.Cmd) error { return c.Process.Kill() },
		"frozen":    func(c *exec.Cmd) error { return c.Process.Kill() },
		"interrupt": func(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGINT) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			starter := exec.Command(os.Args[0])
			starter.Env = append(os.Environ(), part+"="+name)
			// Interrupts reach the whole group, as from a terminal.
			starter.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := starter.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := starter.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			var dir, addr string
			var server, child int
			if _, err := fmt.Sscan(line, &dir, &addr, &server, &child); err != nil {
				t.Fatal(err)
			}
			if err := end(starter); err != nil {
				t.Fatal(err)
			}
			if err := starter.Wait(); err == nil {
				t.Fatal("the starter ended well, so nothing was tried")
			}
			if !eventually(func() bool { return !exists(dir) }) {
				t.Errorf("directory %s survived", dir)
			}
			for what, pid := range map[string]int{"server": server, "its child": child} {
				if runs(pid) {
					t.Errorf("%s, pid %d, survived", what, pid)
				}
			}
			if answers(addr) {
				t.Errorf("%s still answers", addr)
			}
		})
	}
}

func TestClose(t *testing.T) {
	home := open(t)
	polite, _ := startServer(home)
	child := childOf(polite)
	if err := home.Close(); err != nil {
		t.Fatal(err)
	}
	if exists(home.Dir()) || runs(polite.Pid()) || runs(child) {
		t.Error("something survived Close")
	}
	if _, err := home.Start(t.Context(), config("127.0.0.1:0")); err == nil {
		t.Error("a server was started in a closed home")
	}
	if err := home.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}
