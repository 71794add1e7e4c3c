package cache

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// historyRun is a history under way: processes of this test binary that share a board.
type historyRun struct {
	cluster *rediscluster.Cluster
	rdb     redis.UniversalClient
	board   *board
	clock   stopwatch
	config  workerConfig
	callers int
	workers []*workerProcess
	phases  []string
	losses  int
}

type workerProcess struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	ready   chan struct{}
	stocked chan struct{}
	done    chan struct{}
	killed  bool
}

func startHistory(t *testing.T, workers int, c workerConfig) *historyRun {
	t.Helper()
	h := &historyRun{cluster: six.Get(t), callers: c.Callers}
	if err := h.cluster.WaitHealthy(testContext(t)); err != nil {
		t.Fatal(err)
	}
	h.rdb = client(t, h.cluster)
	c.Board, c.Base, c.Workers = filepath.Join(t.TempDir(), "board"), time.Now(), workers
	c.Redis, c.Prefix = h.cluster.Addrs(), newPrefix()
	board, unmap, err := mapBoard(c.Board)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unmap() })
	h.board, h.clock, h.config = board, newStopwatch(c.Base), c
	for n := range workers {
		h.workers = append(h.workers, h.start(t, n))
	}
	for _, w := range h.workers {
		w.await(t, w.ready)
	}
	return h
}

// start starts one process, which ends with the test.
func (h *historyRun) start(t *testing.T, number int) *workerProcess {
	t.Helper()
	c := h.config
	c.Number = number
	value, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	w := &workerProcess{cmd: exec.Command(os.Args[0]), ready: make(chan struct{}), stocked: make(chan struct{}), done: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), historyEnv+"="+string(value), "GORACE=halt_on_error=1", "GOMAXPROCS=2")
	var log bytes.Buffer
	w.cmd.Stderr = &log
	stdin, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.stdin = stdin
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			switch text := lines.Text(); text {
			case "ready":
				close(w.ready)
			case "stocked":
				close(w.stocked)
			default:
				t.Log(text)
			}
		}
	}()
	t.Cleanup(sync.OnceFunc(func() {
		stdin.Close()
		<-w.done
		if err := w.cmd.Wait(); err != nil && !w.killed {
			t.Errorf("process %d ended with %v:\n%s", number, err, log.String())
		}
	}))
	return w
}

func (w *workerProcess) await(t *testing.T, what <-chan struct{}) {
	t.Helper()
	select {
	case <-what:
	case <-w.done:
		t.Fatal("a process has ended too early")
	case <-time.After(30 * time.Second):
		t.Fatal("a process does not answer")
	}
}

func (w *workerProcess) kill() {
	w.killed = true
	_ = w.cmd.Process.Kill()
	<-w.done
}

// phase names what follows.
func (h *historyRun) phase(name string) {
	h.phases = append(h.phases, name)
	h.board.phase.Store(int64(len(h.phases) - 1))
}

// rest ends all work, lets the processes take stock, and says what was seen.
func (h *historyRun) rest(t *testing.T, settle time.Duration) {
	t.Helper()
	h.phase("rest")
	h.board.quiet.Store(1)
	time.Sleep(settle)
	h.board.stop.Store(1)
	for _, w := range h.workers {
		w.await(t, w.stocked)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%-22s %9s %8s %7s %7s %7s %7s %9s %6s %9s %6s\n", "phase", "reads", "tokens", "loads", "writes", "refused", "stale", "over 50ms", "late", "oldest", "lost")
	var reads, tokens, writes int64
	for n, name := range h.phases {
		p := &h.board.phases[n]
		reads, tokens, writes = reads+p.reads.Load(), tokens+p.tokens.Load(), writes+p.writes.Load()
		if calm := name == "calm" || name == "settled"; calm && p.late.Load() > p.writes.Load()/100+1 {
			t.Errorf("%s: %d reads saw what was invalidated more than 50 ms before, by %d writes, while all had their turn", name, p.late.Load(), p.writes.Load())
		}
		fmt.Fprintf(&text, "%-22s %9d %8d %7d %7d %7d %7d %9d %6d %9v %6d\n", name, p.reads.Load(), p.tokens.Load(), p.loads.Load(), p.writes.Load(), p.refused.Load(),
			p.stale.Load(), p.over50.Load(), p.late.Load(), time.Duration(p.oldest.Load()).Round(10*time.Microsecond), p.lost.Load())
	}
	var kept, bad, inProcess, redis, misses int64
	for n := range h.board.stand {
		stand := &h.board.stand[n]
		kept += stand.kept.Load()
		bad += stand.bad.Load()
		inProcess, redis, misses = inProcess+stand.inProcess.Load(), redis+stand.redis.Load(), misses+stand.misses.Load()
	}
	t.Logf("\n%s%d reads (of those in the window %d from the process, %d from Redis, %d missed), %d violations; at rest %d kept in processes, %d of them or of Redis's wrong",
		text.String(), reads, inProcess, redis, misses, h.board.violations.Load(), kept, bad)
	if n := h.board.violations.Load(); n > 0 {
		t.Errorf("%d violations", n)
	}
	if reads < 1000 || tokens < 100 || writes < 100 || inProcess < 100 || redis < 100 || kept == 0 {
		t.Errorf("so little says nothing: %d reads, %d of them with a token, %d writes, %d reads from the process, %d from Redis, %d kept", reads, tokens, writes, inProcess, redis, kept)
	}
}

// historyGoal is how many reads a history has: SCALEAWARE_CACHE_READS, or those of its schedule when that is not set.
func historyGoal(t *testing.T) int64 {
	text := os.Getenv("SCALEAWARE_CACHE_READS")
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("SCALEAWARE_CACHE_READS: %v", err)
	}
	return n
}

// Processes read what they and others commit and invalidate, while servers, connections and processes fail. No read that
// begins after an invalidation returned in its process sees what that removed, nor one that begins some time after it
// returned elsewhere; nobody who knows of a commit is given less; and at rest all levels agree.
func TestHistory(t *testing.T) {
	goal := historyGoal(t)
	h := startHistory(t, 3, workerConfig{Bound: 1500 * time.Millisecond, Readers: 8, Writers: 2, Seed: uint64(time.Now().UnixNano())})
	t.Logf("seed %d", h.config.Seed)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t.Cleanup(func() { h.heal(t) })
	h.phase("calm")
	time.Sleep(2 * time.Second)
	only := os.Getenv("SCALEAWARE_CACHE_FAULT")
	for {
		for _, f := range historyFaults {
			if f.rare && goal == 0 && only == "" || only != "" && only != f.name {
				continue
			}
			began := time.Now()
			if len(h.phases) < boardPhases-3 {
				h.phase(f.name)
			}
			if err := f.drive(h, ctx, t); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
			t.Logf("%s took %v", f.name, time.Since(began).Round(time.Millisecond))
		}
		if h.board.reads.Load() >= goal || h.board.violations.Load() > 0 {
			break
		}
	}
	h.heal(t)
	time.Sleep(time.Second) // all hear of all again
	h.phase("settled")
	time.Sleep(2 * time.Second)
	h.rest(t, time.Second)
}

// Loads read from a standby that lags, and who invalidates says what it wrote: nobody is given anything older, though others,
// who wrote nothing, take away what is loaded after it.
func TestHistoryOfALaggingOrigin(t *testing.T) {
	h := startHistory(t, 3, workerConfig{Bound: 1500 * time.Millisecond, Readers: 8, Writers: 2, Seed: uint64(time.Now().UnixNano()), Lag: 300 * time.Millisecond})
	t.Logf("seed %d", h.config.Seed)
	h.phase("calm")
	time.Sleep(4 * time.Second)
	h.phase("tracking killed")
	if err := h.killTracking(testContext(t), t); err != nil {
		t.Error(err)
	}
	h.rest(t, time.Second)
}
