package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// keptDecisions bounds the list of decisions that explain themselves.
const keptDecisions = 100

// errOvertaken means that another process leads by now. What it decides counts, so nothing is wrong.
var errOvertaken = errors.New("queue: another process scales this queue by now, nothing was called")

// scaleKey is a hash: generation of the last hook call, applied generation, wanted workers, state as JSON, last reason.
func scaleKey(queue string) string { return ownKey(queue, "scale") }

func decisionsKey(queue string) string { return ownKey(queue, "decisions") }

// rememberScript stores a decision if its process still leads and nobody has decided since it read. It deletes before it sets, as a full
// Redis refuses what may need room, unless the script has written before: else nobody would call for the workers that empty it.
//
// KEYS: lease, scale, decisions; ARGV: holder, generation read, new generation, workers, state, reason, decision or "", kept
// Returns 1 when stored.
var rememberScript = redis.NewScript(`
if redis.call("GET", KEYS[1]) ~= ARGV[1] or (redis.call("HGET", KEYS[2], "generation") or "0") ~= ARGV[2] then
	return 0
end
redis.call("HDEL", KEYS[2], "")
redis.call("HSET", KEYS[2], "generation", ARGV[3], "state", ARGV[5], "reason", ARGV[6])
if ARGV[4] ~= "-1" then
	redis.call("HSET", KEYS[2], "workers", ARGV[4])
end
if ARGV[7] ~= "" then
	redis.call("LPUSH", KEYS[3], ARGV[7])
	redis.call("LTRIM", KEYS[3], 0, ARGV[8] - 1)
end
return 1`)

// appliedScript notes that a hook has succeeded, unless a later one was called; as rememberScript, also on a full Redis.
//
// KEYS: scale; ARGV: generation
var appliedScript = redis.NewScript(`
if redis.call("HGET", KEYS[1], "generation") == ARGV[1] then
	redis.call("HDEL", KEYS[1], "")
	redis.call("HSET", KEYS[1], "applied", ARGV[1])
	return 1
end
return 0`)

// scaleMemory is what was stored with the last decision.
type scaleMemory struct {
	generation, applied int64
	reason              Reason
	state               ScaleState
}

// storeScale writes a decision and what the next one needs to know. Decisions that say something new are kept.
func (j *Jobs) storeScale(ctx context.Context, s *scaler, m scaleMemory, d Decision, state ScaleState, call bool) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("queue: encode the scale state of %q: %w", d.Queue, err)
	}
	var kept []byte
	if call || d.Reason != m.reason {
		if kept, err = json.Marshal(d); err != nil {
			return fmt.Errorf("queue: encode the scale decision of %q: %w", d.Queue, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	n, err := rememberScript.Run(ctx, j.rdb, []string{s.lease.Key(), scaleKey(d.Queue), decisionsKey(d.Queue)},
		s.lease.Holder(), m.generation, d.Generation, d.Workers, text, string(d.Reason), kept, keptDecisions).Int()
	switch {
	case err != nil:
		return fmt.Errorf("queue: store the scale decision of %q: %w", d.Queue, err)
	case n != 1:
		return errOvertaken
	default:
		return nil
	}
}

// wanted returns the number of workers that the fleet's scaler has asked for, or -1.
func (j *Jobs) wanted(ctx context.Context, queue string) int {
	n, err := strconv.Atoi(j.rdb.HGet(ctx, scaleKey(queue), "workers").Val())
	if err != nil {
		return -1
	}
	return n
}

// Scaling is what the autoscaler knows and has decided about a queue.
type Scaling struct {
	// Queue is the name.
	Queue string `json:"queue"`
	// Demand is the jobs that need a slot now: due and active ones. It is what KEDA should scale by, as one that counts
	// waiting jobs only ends busy workers.
	Demand int `json:"demand"`
	// Desired is the wanted number of workers; null when none was ever wanted.
	Desired *int `json:"desired"`
	// Generation is that of the last call of a hook, Applied says that the hook has succeeded.
	Generation int64 `json:"generation"`
	Applied    bool  `json:"applied"`
	// Workers live, and have Slots in all.
	Workers int `json:"workers_live"`
	Slots   int `json:"slots_live"`
	// Decisions are the last ones that changed the number or gave another reason, the newest first.
	Decisions []Decision `json:"decisions"`
}

// Scaling tells what the autoscaler of a queue knows and has decided, with up to limit decisions. Errors:
// ErrUnknownQueue, or why Redis cannot be asked.
func (j *Jobs) Scaling(ctx context.Context, queue string, limit int) (*Scaling, error) {
	if err := j.known(ctx, queue); err != nil {
		return nil, err
	}
	in, m, err := j.readQueue(ctx, queue)
	if err != nil {
		return nil, err
	}
	s := &Scaling{
		Queue: queue, Demand: in.Due + in.Active, Generation: m.generation, Applied: m.generation > 0 && m.applied == m.generation,
		Workers: in.Workers, Slots: in.Slots, Decisions: []Decision{},
	}
	if m.state.Decided {
		s.Desired = &m.state.Workers
	}
	limit = min(max(limit, 1), keptDecisions)
	texts, err := j.rdb.LRange(ctx, decisionsKey(queue), 0, int64(limit)-1).Result()
	if err != nil {
		return nil, fmt.Errorf("queue: read the scale decisions of %q: %w", queue, err)
	}
	for _, text := range texts {
		var d Decision
		if json.Unmarshal([]byte(text), &d) == nil { // one that another version has written says nothing here
			s.Decisions = append(s.Decisions, d)
		}
	}
	return s, nil
}

// runKeys are the counters of the last 20 to 30 seconds.
func runKeys(queue string, now time.Time) []string {
	return []string{runKey(queue, now), runKey(queue, now.Add(-runBucket)), runKey(queue, now.Add(-2*runBucket))}
}
