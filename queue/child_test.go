package queue

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/scaleaware/scaleaware/redisclient"
)

// childEnv makes the test binary a worker process: the value is its childConfig.
const childEnv = "QUEUE_TEST_CHILD"

type childConfig struct {
	Addrs  []string
	Queues []Queue
	// Hold makes handlers never return.
	Hold bool
	// Work is how long a job takes.
	Work time.Duration
	// Late makes them tell when they began, and how many µs after the limiter's stamp, instead of which job it was.
	Late bool
}

// runChild works until stdin closes, or SIGTERM, and writes a line for each start: the queue and the limiter's stamp, or "run"
// and the job's number, and "end" and it when its handler returns, or with Late "late:", by how much, the queue, and when.
func runChild() {
	var cfg childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &cfg); err != nil {
		panic(err)
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
		out.Flush()
	}
	rdb := redisclient.New(redisclient.Options(cfg.Addrs...))
	jobs, err := New(rdb, cfg.Queues, nil)
	if err != nil {
		panic(err)
	}
	worker, err := jobs.NewWorker(&WorkerOptions{Concurrency: 20})
	if err != nil {
		panic(err)
	}
	var stamps sync.Map // by job, where both stamps are told
	worker.onUse = func(queue, id string, stamp int64) {
		if cfg.Late {
			stamps.Store(id, stamp)
		}
		say("%s %d", queue, stamp)
	}
	Handle(worker, func(ctx context.Context, job note) error {
		if cfg.Late {
			now := time.Now().UnixMicro()
			id, _ := asynq.GetTaskID(ctx)
			queue, _ := asynq.GetQueueName(ctx)
			if stamp, ok := stamps.LoadAndDelete(id); ok {
				say("late:%d:%s %d", now-stamp.(int64), queue, now)
			}
			return nil
		}
		say("run %d", job.N)
		if cfg.Hold {
			select {}
		}
		if cfg.Work > 0 && !sleep(ctx, cfg.Work) {
			return ctx.Err()
		}
		say("end %d", job.N)
		return nil
	})
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := worker.Run(ctx); err != nil {
		panic(err)
	}
}

// child is a worker process.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{}
}

func startChild(t *testing.T, cfg childConfig, each func(what string, n int64)) *child {
	t.Helper()
	value, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(value))
	c.cmd.Stderr = os.Stderr
	c.stdin, err = c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			what, number, _ := strings.Cut(lines.Text(), " ")
			if n, err := strconv.ParseInt(number, 10, 64); err == nil {
				each(what, n)
			}
		}
	}()
	t.Cleanup(c.stop)
	return c
}

// stop lets the worker drain; kill does not.
func (c *child) stop() {
	c.stdin.Close()
	<-c.done
	c.cmd.Wait()
}

// terminate is stop by a signal, as a deployment does it.
func (c *child) terminate() {
	c.cmd.Process.Signal(syscall.SIGTERM)
	<-c.done
	c.cmd.Wait()
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	<-c.done
	c.cmd.Wait()
}
