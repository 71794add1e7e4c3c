package queue

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// marked is how many of the oldest failed jobs are remembered.
const marked = 10

// cutScript counts failed jobs that another tool has cut off, and remembers the oldest ones that are there now. asynq's tools
// cut the set of failed jobs, as do workers of bare asynq, when they archive something. The tools leave the jobs' data, which
// says that they are in the set; whoever takes a job away on purpose deletes the data or changes the state. It is a lower bound:
// nothing tells how many were archived and cut between two looks, and what a look has found is told to whoever made it, again if
// the answer was lost, but not to the next process that samples. A full Redis refuses what may need room, unless the script has written
// before, and would seem to have no depths.
//
// KEYS: archived, marks: how many there were, then the oldest, as other versions read and write them, found: the last look that found
// something, and how many; ARGV: task key prefix, how many to remember, this look, for how many seconds what it finds is kept
var cutScript = redis.NewScript(`
local look, found = string.match(redis.call("GET", KEYS[3]) or "", "^(%S+) (%d+)$")
if look == ARGV[3] then
	return tonumber(found)
end
local marks = redis.call("LRANGE", KEYS[2], 0, -1)
local n, cut = redis.call("ZCARD", KEYS[1]), 0
for i = 2, #marks do
	local state = not redis.call("ZSCORE", KEYS[1], marks[i]) and redis.pcall("HGET", ARGV[1] .. marks[i], "state")
	if type(state) == "table" and not string.find(state.err, "WRONGTYPE", 1, true) then
		return state
	end
	if state == "archived" then
		cut = cut + 1
	end
end
if #marks > 0 or n > 0 then
	redis.call("DEL", KEYS[2])
end
if cut > 0 then
	cut = math.max(cut, (tonumber(marks[1]) or 0) - n)
	redis.call("SET", KEYS[3], string.format("%s %d", ARGV[3], cut), "EX", ARGV[4])
end
if n > 0 then
	redis.call("RPUSH", KEYS[2], n, unpack(redis.call("ZRANGE", KEYS[1], 0, ARGV[2] - 1)))
end
return cut`)

// noticeCut counts and logs failed jobs that another tool has cut off since the last look, of whichever process.
func (j *Jobs) noticeCut(ctx context.Context, queue string) error {
	const kept = 24 * time.Hour
	look, _ := j.cutLooks.LoadOrStore(queue, rand.Text())
	cut, err := cutScript.Run(ctx, j.rdb, []string{asynqKey(queue, "archived"), ownKey(queue, "oldest-failed"), ownKey(queue, "cut-failed")},
		taskPrefix(queue), marked, look, int(kept.Seconds())).Int()
	if err != nil {
		return fmt.Errorf("queue: look for cut failed jobs of %q: %w", queue, err)
	}
	j.cutLooks.Delete(queue)
	j.meters.cut.WithLabelValues(queue).Add(float64(cut))
	if cut > 0 {
		j.log.Error("queue: a tool of asynq's that archives has cut the oldest failed jobs off, at least so many; their data are still under their keys, and nothing lists them", "queue", queue, "jobs", cut)
	}
	return nil
}
