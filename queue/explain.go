package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Explanation says where a job stands, and why it does not run.
type Explanation struct {
	// Queue, ID and Kind name it.
	Queue string `json:"queue"`
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	// State is waiting, running, delayed, retrying, failed, completed or parked.
	State string `json:"state"`
	// Why is one sentence for people.
	Why string `json:"why"`
	// Ahead is how many waiting jobs start before it; null when it does not wait in line.
	Ahead *int `json:"ahead"`
	// StartsInSeconds is about when it starts, by the limits and the time that is set for it; null when nothing says so.
	StartsInSeconds *float64 `json:"starts_in_seconds"`
	// Retried of MaxRetry attempts after the first are used; Stalls counts the workers that died or hung under it.
	Retried  int `json:"retried"`
	MaxRetry int `json:"max_retry"`
	Stalls   int `json:"stalls"`
	// Error is what the last attempt ended with.
	Error string `json:"error,omitempty"`
	// Stack is that of its panic, when it ended with one: see PanicError.
	Stack string `json:"stack,omitempty"`
	// Progress and Result are what its handler has set.
	Progress string `json:"progress,omitempty"`
	Result   string `json:"result,omitempty"`
}

// Explain says where a job stands and why it does not run. It is for people: it costs some ten commands. Workers are those of this
// package, which are heard of for 15 seconds after their death. Errors:
// ErrUnknownQueue, ErrNoJob, or why Redis cannot be asked.
func (j *Jobs) Explain(ctx context.Context, queue, id string) (*Explanation, error) {
	s, err := j.Status(ctx, queue)
	if err != nil {
		return nil, err
	}
	info, err := j.asynq.GetTaskInfo(queue, id)
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return nil, fmt.Errorf("%w: %s in queue %q", ErrNoJob, clip(id), clip(queue))
	}
	if err != nil {
		return nil, fmt.Errorf("queue: look for job %s: %w", clip(id), err)
	}
	x := &Explanation{Queue: queue, ID: id, Kind: info.Type, Retried: info.Retried, MaxRetry: info.MaxRetry, Error: info.LastErr, Result: string(info.Result)}
	pipe := j.rdb.Pipeline()
	stalls, progress := pipe.HGet(ctx, taskPrefix(queue)+id, "stalls"), pipe.HGet(ctx, taskPrefix(queue)+id, "progress")
	stack := pipe.HGet(ctx, taskPrefix(queue)+id, fieldPanic)
	lease := pipe.ZScore(ctx, asynqKey(queue, "lease"), id)
	ahead := pipe.LPos(ctx, asynqKey(queue, "pending"), id, redis.LPosArgs{Rank: -1, MaxLen: 100_000})
	parked := pipe.LPos(ctx, ownKey(queue, "parked"), id, redis.LPosArgs{})
	if _, err := pipe.Exec(ctx); err != nil && !isNil(err) {
		return nil, fmt.Errorf("queue: look for job %s: %w", clip(id), err)
	}
	crew, _, err := j.readQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	x.Stalls, _ = stalls.Int()
	x.Progress, x.Stack = progress.Val(), stackOf(info.LastErr, stack.Val())
	switch info.State {
	case asynq.TaskStateActive:
		x.State, x.Why = "running", "it runs"
		if lease.Err() != nil || time.Unix(int64(lease.Val()), 0).Before(time.Now()) {
			x.Why = "its worker is not heard of any more; it goes back to its queue within about 20 seconds"
			if crew.Workers == 0 {
				x.Why = "its worker is not heard of any more, and no other one lives that would bring it back: start one"
			}
		}
	case asynq.TaskStateScheduled:
		x.State, x.Why = "delayed", "its time comes at "+info.NextProcessAt.UTC().Format(time.RFC3339)
		x.startsIn(time.Until(info.NextProcessAt))
	case asynq.TaskStateRetry:
		x.State, x.Why = "retrying", "it is tried again at "+info.NextProcessAt.UTC().Format(time.RFC3339)
		x.startsIn(time.Until(info.NextProcessAt))
	case asynq.TaskStateArchived:
		x.State, x.Why = "failed", "its attempts are used up; retry-failed gives it fresh ones"
	case asynq.TaskStateCompleted:
		x.State, x.Why = "completed", "it is done and kept for its retention"
	default:
		x.State = "waiting"
		switch {
		case parked.Err() == nil:
			x.State, x.Why = "parked", "drain has set it aside; resume brings it back"
		case ahead.Err() == nil:
			n := max(0, s.Waiting-1-int(ahead.Val())) // the head is the list's end
			x.Ahead = &n
			j.explainWaiting(x, s)
			if crew.Slots == 0 { // so nothing that was said of its start is true
				x.Why, x.StartsInSeconds = noWorker(s, crew.Workers), nil
			}
		default:
			x.Why = "more than 100000 jobs are ahead of it"
		}
	}
	return x, nil
}

// explainWaiting finds the first reason of those that the fetch would find.
func (j *Jobs) explainWaiting(x *Explanation, s *Status) {
	const patience = 5 // seconds: idle workers look more often
	q, declared := j.declared(s.Queue)
	until := func(seconds *float64) string {
		if seconds == nil {
			return ""
		}
		x.startsIn(time.Duration(*seconds * float64(time.Second)))
		return fmt.Sprintf(" for %.0f more seconds", *seconds)
	}
	switch {
	case s.Pause != nil:
		x.Why = "the queue is paused" + until(s.Pause.LeftSeconds) + because(s.Pause)
	case s.ThrottledSeconds != nil:
		x.Why = "the queue is throttled" + until(s.ThrottledSeconds)
	case declared && j.allow(context.Background(), q) != nil:
		x.Why = "writes are off, and the queue's jobs write"
	case s.ConcurrencyLimit != nil && s.Active >= *s.ConcurrencyLimit:
		x.Why = fmt.Sprintf("%d jobs run, which is the queue's limit", s.Active)
	case s.Active == 0 && s.FailedRate == nil && s.OldestSeconds != nil && *s.OldestSeconds > patience && (s.RateLimit == nil || s.RateLimit.Used == 0):
		x.Why = "workers live, and none has started a job of the queue lately: their slots may be taken by other queues, or they look seldom, else look at their logs"
	case s.RateLimit != nil && (s.RateLimit.Used >= s.RateLimit.Max || *x.Ahead >= s.RateLimit.Max):
		x.startsIn(time.Duration(float64(*x.Ahead+1) / float64(s.RateLimit.Max) * s.RateLimit.PerSeconds * float64(time.Second)))
		x.Why = fmt.Sprintf("%d jobs are ahead of it and the queue starts %d in %v seconds", *x.Ahead, s.RateLimit.Max, s.RateLimit.PerSeconds)
	default:
		x.Why = fmt.Sprintf("%d jobs are ahead of it, %d run", *x.Ahead, s.Active)
	}
}

// noWorker is what is to be done first, and what comes after that.
func noWorker(s *Status, workers int) string {
	why := "no worker lives that takes jobs of the queue"
	if workers > 0 {
		why = "the workers that live have no slots for jobs of the queue: scale them up"
	}
	switch {
	case s.Pause != nil:
		why += ", and it is paused" + because(s.Pause)
	case s.ThrottledSeconds != nil:
		why += ", and it is throttled"
	}
	return why
}

func because(h *Held) string {
	switch {
	case h.Reason != "" && h.Owner != "":
		return " by " + h.Owner + ": " + h.Reason
	case h.Reason != "":
		return ": " + h.Reason
	case h.Owner != "":
		return " by " + h.Owner
	default:
		return ""
	}
}

func (x *Explanation) startsIn(d time.Duration) {
	seconds := max(0, d.Seconds())
	x.StartsInSeconds = &seconds
}
