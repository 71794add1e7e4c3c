package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
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
	// OldestSeconds is the age of the oldest waiting job; null when unknown. Of jobs that asynq's tools made waiting, which does not note
	// the time, it counts from when a sample of Jobs.Run first saw one at the head; until then it is unknown.
	OldestSeconds *float64 `json:"oldest_waiting_seconds"`
	// RunP50Seconds, RunP95Seconds and RunP99Seconds are percentiles of attempts that ended in the last 5 minutes, without up to
	// 10 seconds at their beginning, at most 2.5 % off; null when there was none. Workers tell of theirs once a second, so the last
	// second of one that was killed is missing.
	RunP50Seconds *float64 `json:"run_p50_seconds"`
	RunP95Seconds *float64 `json:"run_p95_seconds"`
	RunP99Seconds *float64 `json:"run_p99_seconds"`
	// FailedRate is the share of those attempts that failed; null when there was none.
	FailedRate *float64 `json:"failed_rate"`
	// Paused says that no job is started, Pause who has done that; null when nobody has.
	Paused bool  `json:"paused"`
	Pause  *Held `json:"pause"`
	// Closed is who has made the queue take no new jobs; null when it takes them.
	Closed *Held `json:"closed"`
	// Finished says that it is closed and nothing waits, runs, is delayed or retrying: drain with mode=finish is through.
	Finished bool `json:"finished"`
	// ThrottledSeconds is how long no job is started because of Throttle; null when it is not.
	ThrottledSeconds *float64 `json:"throttled_seconds"`
	// RateLimit is the limit that holds now; null when there is none.
	RateLimit *RateLimit `json:"rate_limit"`
	// ConcurrencyLimit is how many jobs may run at once in the fleet; null when there is no such limit.
	ConcurrencyLimit *int `json:"concurrency_limit"`
	// DesiredWorkers is what the autoscaler last asked for; null when there is none.
	DesiredWorkers *int `json:"desired_workers"`
}

// RateLimit is a Rate as JSON.
type RateLimit struct {
	// Max starts in any window of PerSeconds.
	Max        int     `json:"max"`
	PerSeconds float64 `json:"per_seconds"`
	// Used is how many starts the window that ends now has.
	Used int `json:"used"`
	// Smooth says that they are spread over the window.
	Smooth bool `json:"smooth"`
	// Declared is false when SetLimits has changed the declaration.
	Declared bool `json:"declared"`
}

// Held is a Hold as it stands.
type Held struct {
	// Reason and Owner are the Hold's.
	Reason string `json:"reason,omitempty"`
	Owner  string `json:"owner,omitempty"`
	// Since is when it began; zero when asynq's tools did it.
	Since time.Time `json:"since,omitzero"`
	// LeftSeconds is when it ends by itself; null for never.
	LeftSeconds *float64 `json:"left_seconds"`
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
	for q, field := range map[float64]**float64{0.5: &s.RunP50Seconds, 0.95: &s.RunP95Seconds, 0.99: &s.RunP99Seconds} {
		if value, ok := runs.quantile(q); ok {
			*field = &value
		}
	}
	if ended := runs.done + runs.failed; ended > 0 {
		rate := float64(runs.failed) / float64(ended)
		s.FailedRate = &rate
	}
	if err := j.readBounds(ctx, s); err != nil {
		return nil, err
	}
	s.Finished = s.Closed != nil && s.unfinished() == 0
	if n := j.wanted(ctx, queue); n >= 0 {
		s.DesiredWorkers = &n
	}
	return s, nil
}

// usedScript counts the starts of the window that ends now, in a list that has the newest first.
//
// KEYS: starts, limits; ARGV: window in µs
var usedScript = redis.NewScript(`
local window = tonumber(redis.call("HGET", KEYS[2], "window") or ARGV[1])
local time = redis.call("TIME")
local from = tonumber(time[1]) * 1000000 + tonumber(time[2]) - window
local low, high = 0, redis.call("LLEN", KEYS[1])
while low < high do
	local middle = math.floor((low + high) / 2)
	if tonumber(redis.call("LINDEX", KEYS[1], middle)) > from then
		low = middle + 1
	else
		high = middle
	end
end
return low`)

// readBounds reads what keeps jobs of a queue from starting.
func (j *Jobs) readBounds(ctx context.Context, s *Status) error {
	limits, set, err := j.LimitsOf(ctx, s.Queue)
	if err != nil {
		return err
	}
	if limits.Concurrency > 0 {
		s.ConcurrencyLimit = &limits.Concurrency
	}
	if limits.Rate.Limited() {
		s.RateLimit = &RateLimit{Max: limits.Rate.Max, PerSeconds: limits.Rate.Per.Seconds(), Smooth: limits.Smooth, Declared: !set}
		if s.RateLimit.Used, err = usedScript.Run(ctx, j.rdb, []string{ownKey(s.Queue, "starts"), ownKey(s.Queue, "limits")}, limits.Rate.window().Microseconds()).Int(); err != nil {
			return fmt.Errorf("queue: count the starts of %q: %w", s.Queue, err)
		}
	}
	if s.Pause, err = j.held(ctx, asynqKey(s.Queue, "paused"), ownKey(s.Queue, "paused")); err == nil {
		s.Closed, err = j.held(ctx, ownKey(s.Queue, "closed"), ownKey(s.Queue, "closing"))
	}
	var throttled time.Duration
	if err == nil {
		throttled, err = j.rdb.PTTL(ctx, ownKey(s.Queue, "throttle")).Result()
	}
	if err != nil {
		return fmt.Errorf("queue: read what holds %q: %w", s.Queue, err)
	}
	if throttled > 0 {
		seconds := throttled.Seconds()
		s.ThrottledSeconds = &seconds
	}
	return nil
}

// held returns what stands at the keys of a Hold, or nil.
func (j *Jobs) held(ctx context.Context, stop, why string) (*Held, error) {
	pipe := j.rdb.Pipeline()
	value, left, reasons := pipe.Get(ctx, stop), pipe.PTTL(ctx, stop), pipe.HGetAll(ctx, why)
	if _, err := pipe.Exec(ctx); err != nil && !isNil(err) {
		return nil, err
	}
	if left.Val() == -2 || isNil(value.Err()) { // no such key
		return nil, nil
	}
	if of := reasons.Val()["stop"]; of != "" && of != value.Val() { // asynq's tools have undone that hold, and paused
		reasons.SetVal(nil)
	}
	h := &Held{Reason: reasons.Val()["reason"], Owner: reasons.Val()["owner"]}
	if since, err := strconv.ParseInt(reasons.Val()["since"], 10, 64); err == nil {
		h.Since = time.Unix(since, 0).UTC()
	}
	if left.Val() > 0 {
		seconds := left.Val().Seconds()
		h.LeftSeconds = &seconds
	}
	return h, nil
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

// errDepth is an answer of another form, which no server gives.
var errDepth = errors.New("it answered in another form")

// readDepth reads the counts and the age with one script, not with asynq's GetQueueInfo, which samples memory usage
// on each call and fails when a sampled job has just ended.
func (j *Jobs) readDepth(ctx context.Context, queue string) (*Status, error) {
	keys := make([]string, 0, 8)
	for _, name := range []string{"pending", "active", "scheduled", "retry", "archived", "completed", "paused"} {
		keys = append(keys, asynqKey(queue, name))
	}
	n, err := depthScript.Run(ctx, j.rdb, append(keys, ownKey(queue, "parked")), taskPrefix(queue)).Int64Slice()
	if err == nil && len(n) != 9 {
		err = errDepth
	}
	if err != nil {
		return nil, fmt.Errorf("queue: read the depth of %q: %w", queue, err)
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
