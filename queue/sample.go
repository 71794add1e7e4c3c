package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

// missedSamples is how often a queue's depth may be missed before its gauges go.
const missedSamples = 3

// sampler sets the queues' gauges in one process of those that declare the same queues.
type sampler struct {
	jobs   *Jobs
	missed map[string]int
}

func (j *Jobs) newSampler() (*metrics.Sampler, error) {
	s := &sampler{jobs: j, missed: make(map[string]int)}
	sampler, err := metrics.NewSampler("queue", "sample", s.sample, s.forgetAll, &metrics.SamplerOptions{
		Interval:   j.opts.SampleInterval,
		Lease:      redisclient.NewLease(j.rdb, j.samplerKey(), max(3*j.opts.SampleInterval, 2*time.Second)),
		Failed:     func(err error) { j.background("sample", err) },
		Registerer: j.opts.Registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return sampler, nil
}

// samplerKey is the same for all that declare the same queues: who declares fewer cannot sample for who declares more.
func (j *Jobs) samplerKey() string {
	names := make([]string, len(j.queues))
	for i, q := range j.queues {
		names[i] = q.Name
	}
	slices.Sort(names)
	sum := sha256.Sum256([]byte(strings.Join(names, " ")))
	return "scaleaware:queue:sampler:" + hex.EncodeToString(sum[:8])
}

// sample fails when no queue can be read, or the process ends meanwhile. One that cannot is missed for itself.
func (s *sampler) sample(ctx context.Context) error {
	queues := s.jobs.queues
	errs, failed := make([]error, len(queues)), 0
	sideBySide(ctx, len(queues), func(ctx context.Context, i int) { errs[i] = s.jobs.sample(ctx, queues[i].Name) })
	for i, q := range queues {
		if errs[i] == nil {
			delete(s.missed, q.Name)
			continue
		}
		failed++
		if s.missed[q.Name]++; s.missed[q.Name] >= missedSamples {
			s.jobs.hide(q.Name)
		}
	}
	if failed == len(queues) || errors.Is(ctx.Err(), context.Canceled) {
		return errors.Join(errs...)
	}
	if failed > 0 {
		s.jobs.background("sample", errors.Join(errs...))
	}
	return nil
}

func (s *sampler) forgetAll() {
	clear(s.missed)
	for _, q := range s.jobs.queues {
		s.jobs.hide(q.Name)
	}
}

// hide takes a queue's gauges away: an old number would look like a calm queue.
func (j *Jobs) hide(queue string) {
	label := prometheus.Labels{"queue": queue}
	j.meters.tasks.DeletePartialMatch(label)
	j.meters.oldest.DeletePartialMatch(label)
	j.meters.desired.DeletePartialMatch(label)
	j.meters.rate.DeletePartialMatch(label)
}

// ageScript gives the oldest waiting job, where it has none, the time since which it waits at least: that at which the first such job
// in a row was seen. asynq's run-all and requeue write none, and its tools and ours would know no age. It deletes before it sets, as a
// full Redis refuses what may need room, unless the script has written before.
//
// KEYS: pending, since when such jobs are seen; ARGV: task key prefix, for how many seconds that is remembered
var ageScript = redis.NewScript(`
local id = redis.call("LINDEX", KEYS[1], "-1")
if not id then
	return redis.call("DEL", KEYS[2])
end
local key, seen = ARGV[1] .. id, redis.call("GET", KEYS[2])
local job = redis.pcall("HMGET", key, "msg", "pending_since")
if job[2] then
	return job[2] == seen or redis.call("DEL", KEYS[2])
end
if not job[1] then
	return 0
end
if not seen then
	local time = redis.call("TIME")
	seen = string.format("%d%06d000", time[1], time[2])
end
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[2], seen, "EX", ARGV[2])
redis.call("HSET", key, "pending_since", seen)
return 1`)

// sample sets a queue's gauges.
func (j *Jobs) sample(ctx context.Context, queue string) error {
	const remembered = 24 * time.Hour
	err := ageScript.Run(ctx, j.rdb, []string{asynqKey(queue, "pending"), ownKey(queue, "ageless")}, taskPrefix(queue), int(remembered.Seconds())).Err()
	if err != nil && !isNil(err) {
		return fmt.Errorf("queue: look at the oldest job of %q: %w", queue, err)
	}
	s, err := j.readDepth(ctx, queue)
	if err != nil {
		return err
	}
	limits, _, err := j.LimitsOf(ctx, queue)
	if err != nil {
		return err
	}
	if limits.Rate.Max > 0 {
		j.meters.rate.WithLabelValues(queue).Set(float64(limits.Rate.Max) / limits.Rate.Per.Seconds())
	} else {
		j.meters.rate.DeleteLabelValues(queue)
	}
	for state, n := range map[string]int{
		"pending": s.Waiting, "active": s.Active, "scheduled": s.Delayed, "retry": s.Retrying,
		"archived": s.Failed, "completed": s.Completed, "parked": s.Parked,
	} {
		j.meters.tasks.WithLabelValues(queue, state).Set(float64(n))
	}
	if s.OldestSeconds != nil {
		j.meters.oldest.WithLabelValues(queue).Set(*s.OldestSeconds)
	} else {
		j.meters.oldest.DeleteLabelValues(queue)
	}
	if n := j.wanted(ctx, queue); n >= 0 {
		j.meters.desired.WithLabelValues(queue).Set(float64(n))
	} else {
		j.meters.desired.DeleteLabelValues(queue)
	}
	return j.noticeCut(ctx, queue)
}
