package queue

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Status is a queue as the whole fleet sees it.
type Status struct {
	// Queue is the name.
	Queue string `json:"queue"`
	// Waiting jobs could run now, Active ones run, Delayed ones wait for their time, Retrying ones for another attempt.
	Waiting  int `json:"waiting"`
	Active   int `json:"active"`
	Delayed  int `json:"delayed"`
	Retrying int `json:"retrying"`
	// Failed jobs have used up their attempts.
	Failed int `json:"failed"`
	// Completed jobs are done and kept for their retention.
	Completed int `json:"completed"`
	// Parked jobs were set aside by drain and come back with resume.
	Parked int `json:"parked"`
	// OldestSeconds is the age of the oldest waiting job; null when unknown.
	OldestSeconds *float64 `json:"oldest_waiting_seconds"`
	// RunP95Seconds is the 95th percentile of attempts that ended in the last 5 minutes; null when there was none.
	RunP95Seconds *float64 `json:"run_p95_seconds"`
	// FailedRate is the share of those attempts that failed; null when there was none.
	FailedRate *float64 `json:"failed_rate"`
	// Paused says that no job is started.
	Paused bool `json:"paused"`
	// RateLimit is the declared limit; null when there is none.
	RateLimit *RateLimit `json:"rate_limit"`
	// DesiredWorkers is what the autoscaler last asked for; null when there is none.
	DesiredWorkers *int `json:"desired_workers"`
}

// RateLimit is a Rate as JSON.
type RateLimit struct {
	// Max starts in any window of PerSeconds.
	Max        int     `json:"max"`
	PerSeconds float64 `json:"per_seconds"`
}

// Status reads the state of a queue. Errors: ErrUnknownQueue, or why Redis cannot be asked.
func (j *Jobs) Status(ctx context.Context, queue string) (*Status, error) {
	if err := j.known(ctx, queue); err != nil {
		return nil, err
	}
	s, err := j.readDepth(ctx, queue)
	if err != nil {
		return nil, err
	}
	runs, err := readRuns(ctx, j.rdb, queue)
	if err != nil {
		return nil, fmt.Errorf("queue: read run counters of %q: %w", queue, err)
	}
	if p95, ok := runs.quantile(0.95); ok {
		rate := float64(runs.failed) / float64(runs.done+runs.failed)
		s.RunP95Seconds, s.FailedRate = &p95, &rate
	}
	if q, ok := j.declared(queue); ok && q.Rate.Limited() {
		s.RateLimit = &RateLimit{Max: q.Rate.Max, PerSeconds: q.Rate.Per.Seconds()}
	}
	if n := j.wanted(ctx, queue); n >= 0 {
		s.DesiredWorkers = &n
	}
	return s, nil
}

// Names lists the declared queues in their order, then those that exist in Redis.
func (j *Jobs) Names(ctx context.Context) ([]string, error) {
	var names []string
	for _, q := range j.queues {
		names = append(names, q.Name)
	}
	stored, err := j.rdb.SMembers(ctx, allQueues).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: list queues: %w", err)
	}
	slices.Sort(stored)
	for _, name := range stored {
		if !slices.Contains(names, name) && validName(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// readDepth reads the counts and the age with one script, not with asynq's GetQueueInfo, which samples memory usage
// on each call and fails when a sampled job has just ended.
func (j *Jobs) readDepth(ctx context.Context, queue string) (*Status, error) {
	keys := make([]string, 0, 8)
	for _, name := range []string{"pending", "active", "scheduled", "retry", "archived", "completed", "paused"} {
		keys = append(keys, asynqKey(queue, name))
	}
	n, err := depthScript.Run(ctx, j.rdb, append(keys, ownKey(queue, "parked")), taskPrefix(queue)).Int64Slice()
	if err != nil || len(n) != 9 {
		return nil, fmt.Errorf("queue: read the depth of %q (%d values): %w", queue, len(n), err)
	}
	s := &Status{
		Queue: queue, Waiting: int(n[0]), Active: int(n[1]), Delayed: int(n[2]), Retrying: int(n[3]),
		Failed: int(n[4]), Completed: int(n[5]), Paused: n[6] == 1, Parked: int(n[7]),
	}
	if n[8] >= 0 {
		age := (time.Duration(n[8]) * time.Millisecond).Seconds()
		s.OldestSeconds = &age
	}
	return s, nil
}
