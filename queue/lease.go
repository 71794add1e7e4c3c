package queue

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// extendScript extends the leases that are there. A full Redis refuses what may need room, unless the script has written before: else
// the leases of all that runs would end, and it would run again.
//
// KEYS: lease; ARGV: by job its expiry in s and its id. Returns 0, as ZADD XX does, which adds none.
var extendScript = redis.NewScript(`
redis.call("ZREM", KEYS[1], "")
for i = 1, #ARGV, 2 do
	redis.call("ZADD", KEYS[1], "XX", ARGV[i], ARGV[i + 1])
end
return 0`)

// ZAddXX is how asynq's heartbeat extends leases.
func (f *fetcher) ZAddXX(ctx context.Context, key string, members ...redis.Z) *redis.IntCmd {
	if key != asynqKey(f.queue.Name, "lease") {
		return f.UniversalClient.ZAddXX(ctx, key, members...)
	}
	args := make([]any, 0, 2*len(members))
	for _, z := range members {
		args = append(args, formatScore(z), z.Member)
	}
	extended := redis.NewIntCmd(ctx)
	if err := extendScript.Run(ctx, f.jobs.rdb, []string{key}, args...).Err(); err != nil {
		extended.SetErr(err)
	}
	return extended
}
