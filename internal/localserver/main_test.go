package localserver_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// The test binary plays the other parts too, told by this variable.
const part = "LOCALSERVER_TEST_PART"

func TestMain(m *testing.M) {
	switch os.Getenv(part) {
	case "":
		goleak.VerifyTestMain(m)
	case "server":
		playServer()
	case "child":
		select {}
	default:
		playStarter(os.Getenv(part))
	}
}

// playServer listens, has a child in a session of its own as PostgreSQL has,
// and cannot be asked to end when told so.
func playServer() {
	if os.Getenv("STUBBORN") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), part+"=child")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		panic(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("child", child.Process.Pid)
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			fmt.Fprintln(conn, "hello")
			conn.Close()
		}()
	}
}

// playStarter starts a server, says who and where, and ends in the way told.
func playStarter(end string) {
	home, err := localserver.Open(nil)
	if err != nil {
		panic(err)
	}
	p, addr := startServer(home, "STUBBORN=yes")
	if end == "frozen" {
		p.Freeze()
	}
	fmt.Println(home.Dir(), addr, p.Pid(), childOf(p))
	switch end {
	case "panic":
		panic("as told")
	case "exit":
		os.Exit(3)
	}
	select {} // to be killed or interrupted
}

func startServer(home *localserver.Home, env ...string) (*localserver.Process, string) {
	port, err := home.Port()
	if err != nil {
		panic(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := home.Start(context.Background(), config(addr, env...))
	if err != nil {
		panic(err)
	}
	if !eventually(func() bool { return answers(addr) && childOf(p) > 0 }) {
		panic("the server did not start: " + p.Log())
	}
	return p, addr
}

func config(addr string, env ...string) localserver.Config {
	return localserver.Config{
		Name: "toy", Path: os.Args[0], Args: []string{addr},
		Env: append(env, part+"=server"),
	}
}

// childOf reads the latest start's line in the log.
func childOf(p *localserver.Process) int {
	log := p.Log()
	at := strings.LastIndex(log, "child ")
	if at < 0 {
		return 0
	}
	var pid int
	fmt.Sscanf(log[at:], "child %d", &pid)
	return pid
}

func answers(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	n, _ := conn.Read(make([]byte, 8))
	return n > 0
}

// runs looks at the state too: where nobody reaps orphans soon, kill -0 succeeds on the dead.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !exists("/proc/self/stat")
	}
	return !strings.Contains(string(text), ") Z ")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func eventually(holds func() bool) bool {
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}
