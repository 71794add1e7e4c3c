package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	shareEvery = 5 * time.Second
	// shareLife is how long a process counts after it was last heard of.
	shareLife = 3 * shareEvery
)

// shareScript puts one process's counts beside the others' and forgets those that fell silent, by the server's clock. It
// begins with a write: a full Redis refuses what may need room, unless the script has written before.
var shareScript = redis.NewScript(`
redis.call('HDEL', KEYS[1], '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '^%d+') or 0) <= now then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[2]) .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`)

// sharedScript returns the counts of the other processes that were heard of lately.
var sharedScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all, living = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local till, counts = string.match(all[i + 1], '^(%d+) (.*)$')
  if all[i] ~= ARGV[1] and till and tonumber(till) > now then living[#living + 1] = counts end
end
return living`)

// viewCounts are a process's look-ups in its window, by view and result.
type viewCounts map[string][results]int64

func (s *Store) hitsKey() string { return s.opts.Prefix + metaMark + "hits" }

// share tells the other processes what this one has counted.
func (s *Store) share(ctx context.Context) error {
	blob, err := json.Marshal(s.counts())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	return shareScript.Run(ctx, s.rdb, []string{s.hitsKey()}, s.id, shareLife.Milliseconds(), blob).Err()
}

// FleetHitRate reports the look-ups of all processes that share this cache and run, each as of five seconds ago at
// most. When Redis does not answer it reports on this process alone and says so in Degraded.
func (s *Store) FleetHitRate(ctx context.Context) HitRate {
	sum := s.counts()
	if s.rdb == nil {
		return s.report("process", 1, sum)
	}
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	others, err := sharedScript.Run(ctx, s.rdb, []string{s.hitsKey()}, s.id).StringSlice()
	if err != nil {
		report := s.report("process", 1, sum)
		report.Degraded = fmt.Sprintf("the counts of the other processes cannot be read, these are of one process: %v", err)
		return report
	}
	processes := 1
	for _, blob := range others {
		var counts viewCounts
		if json.Unmarshal([]byte(blob), &counts) != nil {
			continue // of another version
		}
		processes++
		for view, n := range counts {
			have := sum[view]
			for r := range n {
				have[r] += n[r]
			}
			sum[view] = have
		}
	}
	return s.report("fleet", processes, sum)
}
