// Command gated runs a worker on a limited queue with twenty jobs, with the asynq that it was compiled with, and prints what came of
// it: how many jobs have run, and why the worker would not go on. With a third argument the limit is not declared but set at run
// time. TestAsynqVersions compiles it with several.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

type job struct{ N int }

func (job) Kind() string { return "gated" }

type outcome struct {
	Ran     int64
	Refused bool
	Why     string
}

func main() {
	out, err := run(os.Args[1], os.Args[2], len(os.Args) == 3)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
}

func run(addr, name string, declared bool) (out outcome, err error) {
	rdb := redisclient.New(redisclient.Options(addr))
	defer rdb.Close()
	q := queue.Queue{Name: name}
	limit := queue.Rate{Max: 2, Per: time.Minute}
	if declared {
		q.Rate = limit
	}
	j, err := queue.New(rdb, []queue.Queue{q}, nil)
	if err != nil {
		return out, err
	}
	if !declared {
		if err := j.SetLimits(context.Background(), name, queue.Limits{Rate: limit}); err != nil {
			return out, err
		}
	}
	for n := range 20 {
		if _, err := j.Enqueue(context.Background(), job{n}); err != nil {
			return out, err
		}
	}
	w, err := j.NewWorker(nil)
	if err != nil {
		return out, err
	}
	var ran atomic.Int64
	queue.Handle(w, func(context.Context, job) error { ran.Add(1); return nil })
	ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second) // longer than the worker looks for the gate
	defer cancel()
	err = w.Run(ctx)
	out.Ran = ran.Load()
	if err != nil {
		out.Refused, out.Why = errors.Is(err, queue.ErrNotGated), err.Error()
	}
	return out, nil
}
