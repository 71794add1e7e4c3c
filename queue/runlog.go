package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
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
	id       string
	flushing sync.Mutex

	mu      sync.Mutex
	counts  map[string]map[string]int64 // queue, field
	number  int64
	pending map[string]*runFlush // by queue
}

// runFlush is what is on its way to Redis. It is sent until Redis has answered, always the same.
type runFlush struct {
	key    string
	number int64
	fields map[string]int64
}

func newRunLog() *runLog {
	return &runLog{id: rand.Text(), counts: make(map[string]map[string]int64), pending: make(map[string]*runFlush)}
}

// runsScript adds counts, once: those of a call whose answer was lost are told by their number.
//
// KEYS: runs; ARGV: whose, number, ms to keep, field, count, field, count, …
var runsScript = redis.NewScript(`
if tonumber(redis.call("HGET", KEYS[1], ARGV[1]) or "0") >= tonumber(ARGV[2]) then
	return 0
end
for i = 4, #ARGV, 2 do
	redis.call("HINCRBY", KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
redis.call("PEXPIRE", KEYS[1], ARGV[3])
return 1`)

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

// flush sends what Redis did not answer last time, as it was, and then what was counted since.
func (l *runLog) flush(ctx context.Context, rdb redis.UniversalClient) error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, queue := range l.queues() {
		wg.Go(func() {
			err := l.send(ctx, rdb, queue, l.unanswered(queue))
			if err == nil {
				err = l.send(ctx, rdb, queue, l.take(queue))
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("queue: count what %q has run: %w", queue, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// queues are those that there is something to send of.
func (l *runLog) queues() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := slices.Collect(maps.Keys(l.counts))
	for queue := range l.pending {
		if l.counts[queue] == nil {
			names = append(names, queue)
		}
	}
	return names
}

// unanswered returns what Redis has not answered yet, or nil.
func (l *runLog) unanswered(queue string) *runFlush {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending[queue]
}

// take makes what was counted the next flush, or returns nil.
func (l *runLog) take(queue string) *runFlush {
	l.mu.Lock()
	defer l.mu.Unlock()
	fields := l.counts[queue]
	if fields == nil {
		return nil
	}
	l.number++
	f := &runFlush{key: runKey(queue, time.Now()), number: l.number, fields: fields}
	l.pending[queue] = f
	delete(l.counts, queue)
	return f
}

// send adds a flush, unless it is nil, to the counters in Redis, and forgets it when Redis has answered.
func (l *runLog) send(ctx context.Context, rdb redis.UniversalClient, queue string, f *runFlush) error {
	if f == nil {
		return nil
	}
	args := []any{"of:" + l.id, f.number, runKeep.Milliseconds()}
	for field, n := range f.fields {
		args = append(args, field, n)
	}
	if err := runsScript.Run(ctx, rdb, []string{f.key}, args...).Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, queue)
	return nil
}

func runKey(queue string, at time.Time) string {
	return ownKey(queue, "runs:"+strconv.FormatInt(at.Unix()/int64(runBucket/time.Second), 10))
}

// readRuns sums the fleet's counters over the window: the buckets that are wholly in it.
func readRuns(ctx context.Context, rdb redis.UniversalClient, queue string) (*runCounts, error) {
	pipe := rdb.Pipeline()
	now := time.Now()
	for age := time.Duration(0); age < runWindow; age += runBucket {
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
