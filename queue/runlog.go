package queue

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// runBucket is the width of one counter hash in Redis, runWindow what an answer covers, runKeep how long a hash
	// stays.
	runBucket = 10 * time.Second
	runWindow = 5 * time.Minute
	runKeep   = 10 * time.Minute
	// growth is the ratio of neighbouring buckets: a quantile read from them is at most 2.5 % off.
	growth = 1.05
)

// durationBucket numbers durations by their logarithm; 0 is a millisecond or less.
func durationBucket(d time.Duration) int {
	ms := min(max(d.Seconds()*1000, 1), 24*3600*1000)
	return int(math.Ceil(math.Log(ms)/math.Log(growth) - 1e-9))
}

// bucketSeconds is the middle of a bucket.
func bucketSeconds(i int) float64 {
	return math.Pow(growth, float64(i)-0.5) / 1000
}

// runCounts are the outcomes and durations of finished attempts.
type runCounts struct {
	done, failed int64
	buckets      map[int]int64
}

// quantile returns the q-th quantile in seconds; false when there was no run.
func (c *runCounts) quantile(q float64) (float64, bool) {
	highest, total := 0, int64(0)
	for i, n := range c.buckets {
		highest = max(highest, i)
		total += n
	}
	if total == 0 {
		return 0, false
	}
	rank, sum := int64(math.Ceil(q*float64(total))), int64(0)
	for i := 0; i <= highest; i++ {
		if sum += c.buckets[i]; sum >= rank {
			return bucketSeconds(i), true
		}
	}
	return bucketSeconds(highest), true
}

// runLog collects what this worker has run and adds it to the fleet's counters in Redis once a second, so that
// any process can answer for all workers.
type runLog struct {
	mu     sync.Mutex
	counts map[string]map[string]int64 // queue, field
}

func newRunLog() *runLog { return &runLog{counts: make(map[string]map[string]int64)} }

func (l *runLog) add(queue, outcome string, took time.Duration) {
	if outcome == "requeued" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fields := l.counts[queue]
	if fields == nil {
		fields = make(map[string]int64)
		l.counts[queue] = fields
	}
	fields[outcome]++
	fields["b"+strconv.Itoa(durationBucket(took))]++
}

func (l *runLog) flushLoop(ctx context.Context, j *Jobs) {
	for more := true; more; {
		more = sleep(ctx, time.Second)
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		if err := l.flush(flush, j.rdb); err != nil {
			j.background("run counters", err)
		}
		cancel()
	}
}

func (l *runLog) flush(ctx context.Context, rdb redis.UniversalClient) error {
	l.mu.Lock()
	counts := l.counts
	l.counts = make(map[string]map[string]int64)
	l.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	pipe := rdb.Pipeline()
	for queue, fields := range counts {
		key := runKey(queue, time.Now())
		for field, n := range fields {
			pipe.HIncrBy(ctx, key, field, n)
		}
		pipe.Expire(ctx, key, runKeep)
	}
	_, err := pipe.Exec(ctx)
	return err
}

func runKey(queue string, at time.Time) string {
	return ownKey(queue, "runs:"+strconv.FormatInt(at.Unix()/int64(runBucket/time.Second), 10))
}

// readRuns sums the fleet's counters over the window.
func readRuns(ctx context.Context, rdb redis.UniversalClient, queue string) (*runCounts, error) {
	pipe := rdb.Pipeline()
	now := time.Now()
	for age := time.Duration(0); age <= runWindow; age += runBucket {
		pipe.HGetAll(ctx, runKey(queue, now.Add(-age)))
	}
	cmds, err := pipe.Exec(ctx)
	if err != nil {
		return nil, err
	}
	sum := &runCounts{buckets: make(map[int]int64)}
	for _, cmd := range cmds {
		for field, value := range cmd.(*redis.MapStringStringCmd).Val() {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				continue
			}
			switch bucket, isBucket := strings.CutPrefix(field, "b"); {
			case field == "done":
				sum.done += n
			case field == "failed":
				sum.failed += n
			case isBucket:
				if i, err := strconv.Atoi(bucket); err == nil {
					sum.buckets[i] += n
				}
			}
		}
	}
	return sum, nil
}
