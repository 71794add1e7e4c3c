package pgcluster_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// The starter is killed by SIGKILL while one server runs, one is frozen and
// one has been killed: processes, directory and shared memory vanish.
func TestNothingSurvivesTheStarter(t *testing.T) {
	const inner, mark = "PGCLUSTER_TEST_STARTER", "started:"
	if os.Getenv(inner) != "" {
		c, err := pgcluster.Start(context.Background(), &pgcluster.Options{Replicas: 2})
		must(t, err)
		c.Replica(0).Freeze()
		c.Replica(1).Kill()
		fmt.Println(mark, filepath.Dir(c.Primary().Dir()), segment(t, c.Replica(1).Dir()),
			c.Primary().Addr(), c.Replica(0).Addr())
		select {}
	}
	shared.Get(t)
	starter := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	starter.Env = append(os.Environ(), inner+"=1")
	out, err := starter.StdoutPipe()
	must(t, err)
	must(t, starter.Start())
	var dir, leftBehind, running, frozen string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), mark); ok {
			_, err := fmt.Sscan(rest, &dir, &leftBehind, &running, &frozen)
			must(t, err)
		}
	}
	if dir != "" && runtime.GOOS == "linux" && !hasSegment(leftBehind) {
		t.Error("a killed server left no shared memory behind: there is nothing to try")
	}
	must(t, starter.Process.Kill())
	_ = starter.Wait()
	if dir == "" {
		t.Fatal("the starter did not start a cluster")
	}
	gone := func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) }
	for deadline := time.Now().Add(20 * time.Second); !gone() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if !gone() {
		t.Errorf("%s survived", dir)
	}
	for _, addr := range []string{running, frozen} {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.Close()
			t.Errorf("%s is still listened at", addr)
		}
	}
	if hasSegment(leftBehind) {
		t.Errorf("shared memory segment %s survived", leftBehind)
	}
}

// segment is the id of a server's System V segment.
func segment(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	must(t, err)
	fields := strings.Fields(strings.Split(string(text), "\n")[6])
	return fields[1]
}

func hasSegment(id string) bool {
	text, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == id {
			return true
		}
	}
	return false
}
