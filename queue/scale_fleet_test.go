package queue

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// scaleChildEnv makes the test binary a process that scales: the value is its scaleChild.
const scaleChildEnv = "QUEUE_TEST_SCALER"

type scaleChild struct {
	Addrs          []string
	Queue          string
	Interval, Lead time.Duration
	// Work is how long the hook takes before it acts, so that a process is often stopped in it.
	Work time.Duration
}

// actScript is what hooks act on: it does what it is told unless it has been told something newer, and writes down
// everything. KEYS: last, calls; ARGV: generation, workers, process
var actScript = redis.NewScript(`
local last = tonumber(redis.call("GET", KEYS[1]) or "0")
local verdict = "done"
if tonumber(ARGV[1]) < last then
	verdict = "stale"
elseif tonumber(ARGV[1]) == last then
	verdict = "twice"
else
	redis.call("SET", KEYS[1], ARGV[1])
end
local time = redis.call("TIME")
redis.call("RPUSH", KEYS[2], string.format("%s %s %s %s %s%06d", verdict, ARGV[1], ARGV[2], ARGV[3], time[1], time[2]))
return verdict`)

func actKeys(queue string) []string {
	return []string{ownKey(queue, "test-last"), ownKey(queue, "test-calls")}
}

// runScaleChild scales until stdin closes. Its first line is what it holds the lease by.
func runScaleChild() {
	var cfg scaleChild
	if err := json.Unmarshal([]byte(os.Getenv(scaleChildEnv)), &cfg); err != nil {
		panic(err)
	}
	rdb := redisclient.New(redisclient.Options(cfg.Addrs...))
	jobs, err := New(rdb, []Queue{{Name: cfg.Queue}}, &Options{SampleInterval: time.Hour})
	if err != nil {
		panic(err)
	}
	hook := func(ctx context.Context, d Decision) error {
		sleep(context.Background(), cfg.Work) // one that does not look at its context
		verdict, err := actScript.Run(ctx, rdb, actKeys(cfg.Queue), d.Generation, d.Workers, os.Getpid()).Text()
		if err == nil && verdict != "done" {
			err = errors.New(verdict)
		}
		return err
	}
	s := newScaler(jobs, ScaleRule{Queue: cfg.Queue, Above: 10, Up: 5, Below: 3, Down: 2}, hook, ScaleOptions{Interval: cfg.Interval}, cfg.Lead)
	jobs.scalers = append(jobs.scalers, s)
	fmt.Println(s.lease.Holder())
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := jobs.Run(ctx); err != nil {
		panic(err)
	}
}

// scaleProcess is a process that scales.
type scaleProcess struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	holder string
}

func startScaler(t *testing.T, cfg scaleChild) *scaleProcess {
	t.Helper()
	value, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &scaleProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), scaleChildEnv+"="+string(value))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	p.holder = strings.TrimSpace(line)
	return p
}

func (p *scaleProcess) end() {
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.stdin.Close()
	p.cmd.Wait()
}

// act is one call that reached what the hooks act on.
type act struct {
	verdict, process string
	generation       int64
	at               time.Duration // by Redis's clock
}

func acts(t *testing.T, rdb redis.UniversalClient, queue string) (all []act) {
	t.Helper()
	lines, err := rdb.LRange(t.Context(), actKeys(queue)[1], 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		f := strings.Fields(line)
		generation, err1 := strconv.ParseInt(f[1], 10, 64)
		us, err2 := strconv.ParseInt(f[4], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		all = append(all, act{verdict: f[0], process: f[3], generation: generation, at: time.Duration(us) * time.Microsecond})
	}
	return all
}

// TestOneActor kills and stops the leader of three processes again and again, while the load makes it act all the time
// (A3). SCALEAWARE_LEADERS is how many leaders fall, at the lengths that a service has; without it some fall at shorter
// ones.
func TestOneActor(t *testing.T) {
	t.Parallel()
	addrs := single.Get(t).Addrs()
	rdb := client(t, addrs)
	cfg := scaleChild{Addrs: addrs, Queue: fresh("actor"), Interval: 100 * time.Millisecond, Lead: time.Second, Work: 30 * time.Millisecond}
	fall, within := 5, 2500*time.Millisecond
	if text := os.Getenv("SCALEAWARE_LEADERS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("SCALEAWARE_LEADERS is %q, want a number", text)
		}
		fall, within = n, 15*time.Second
		cfg.Interval, cfg.Lead = 5*time.Second, leadFor
		cfg.Work = time.Second
	}
	processes := map[string]*scaleProcess{}
	add := func() {
		p := startScaler(t, cfg)
		processes[p.holder] = p
	}
	t.Cleanup(func() {
		for _, p := range processes {
			p.end()
		}
	})
	for range 3 {
		add()
	}
	// The load is never what the number of workers fits, so that each look acts.
	turn := func() {
		key := asynqKey(cfg.Queue, "pending")
		if rdb.HGet(t.Context(), scaleKey(cfg.Queue), "workers").Val() == "5" {
			rdb.Del(t.Context(), key)
		} else if rdb.LLen(t.Context(), key).Val() == 0 {
			rdb.LPush(t.Context(), key, "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
		}
	}
	next := func(beyond int, within time.Duration) {
		t.Helper()
		eventually(t, within, "somebody acts", func() bool { turn(); return len(acts(t, rdb, cfg.Queue)) > beyond })
	}
	next(0, within+cfg.Interval)
	var worst time.Duration
	var asleep []*scaleProcess
	for round := range fall {
		holder := rdb.Get(t.Context(), ownKey(cfg.Queue, "scaler")).Val()
		leader := processes[holder]
		if leader == nil {
			t.Fatalf("round %d: the leader %q is none of ours", round, holder)
		}
		turn()
		// Somewhere in a look, in a hook, or between two of them: a third of the time is the hook's.
		sleep(t.Context(), time.Duration(round*37%100)*cfg.Interval/100)
		before := len(acts(t, rdb, cfg.Queue))
		fell := time.Now()
		if round%2 == 0 {
			if err := leader.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			leader.cmd.Wait()
			delete(processes, holder)
		} else {
			if err := leader.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			asleep = append(asleep, leader)
		}
		// What was under way may still arrive. Then another one is to act.
		mine := strconv.Itoa(leader.cmd.Process.Pid)
		eventually(t, within+within/2, "another process acts", func() bool {
			turn()
			all := acts(t, rdb, cfg.Queue)
			return len(all) > before && all[len(all)-1].process != mine
		})
		took := time.Since(fell)
		worst = max(worst, took)
		if took > within {
			t.Errorf("round %d: another process acted after %v, want %v at most", round, took, within)
		}
		for _, p := range asleep { // it wakes up into a world that has gone on
			if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		asleep = nil
		for range 2 {
			next(len(acts(t, rdb, cfg.Queue)), within+2*cfg.Interval)
		}
		for len(processes) < 3 {
			add()
		}
	}
	all := acts(t, rdb, cfg.Queue)
	verdicts := map[string]int{}
	last := int64(0)
	for _, a := range all {
		verdicts[a.verdict]++
		if a.verdict == "done" && a.generation <= last {
			t.Errorf("generation %d was done after %d", a.generation, last)
		}
		if a.verdict == "done" {
			last = a.generation
		}
	}
	t.Logf("%d leaders fell, %d calls: %v; the longest handover took %v", fall, len(all), verdicts, worst)
	if verdicts["twice"] > 0 || verdicts["stale"] > 0 {
		t.Errorf("calls that were not to be made: %v", verdicts)
	}
}
