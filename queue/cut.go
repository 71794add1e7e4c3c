package queue

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// marked is how many of the oldest failed jobs are remembered.
const marked = 10

// cutScript counts failed jobs that another tool has cut off, and remembers the oldest ones that are there now. asynq's tools
// cut the set of failed jobs, as do workers of bare asynq, when they archive something. The tools leave the jobs' data, which
// says that they are in the set; whoever takes a job away on purpose deletes the data or changes the state. It is a lower bound:
// nothing tells how many were archived and cut between two looks.
//
// KEYS: archived, marks: how many there were, the last look and what it found, then the oldest; ARGV: task key prefix, how many
// to remember, this look
var cutScript = redis.NewScript(`
local marks = redis.call("LRANGE", KEYS[2], 0, -1)
local before, look, found = string.match(marks[1] or "", "^(%d+) (%S+) (%d+)$")
if look == ARGV[3] then
	return tonumber(found)
end
local n, cut = redis.call("ZCARD", KEYS[1]), 0
for i = 2, #marks do
	if not redis.call("ZSCORE", KEYS[1], marks[i]) and redis.call("HGET", ARGV[1] .. marks[i], "state") == "archived" then
		cut = cut + 1
	end
end
if cut > 0 then
	cut = math.max(cut, (tonumber(before) or 0) - n)
end
if #marks > 0 then
	redis.call("DEL", KEYS[2])
end
if n + cut > 0 then
	redis.call("RPUSH", KEYS[2], string.format("%d %s %d", n, ARGV[3], cut), unpack(redis.call("ZRANGE", KEYS[1], 0, ARGV[2] - 1)))
end
return cut`)

// noticeCut counts and logs failed jobs that another tool has cut off since the last look, of whichever process.
func (j *Jobs) noticeCut(ctx context.Context, queue string) error {
	look, _ := j.cutLooks.LoadOrStore(queue, rand.Text())
	cut, err := cutScript.Run(ctx, j.rdb, []string{asynqKey(queue, "archived"), ownKey(queue, "oldest-failed")}, taskPrefix(queue), marked, look).Int()
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
