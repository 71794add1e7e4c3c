package readonly

import (
	"math/rand/v2"
	"sync/atomic"
)

// counter counts what is under way. Each one leaves the shard that it entered, so no shard, and no sum of shards read one
// after the other, is ever lower than the number of those that entered before the reading began and have not left.
type counter struct {
	shards [shards]shard
}

const shards = 64

// shard fills two cache lines, because processors fetch them in pairs.
type shard struct {
	atomic.Int64
	_ [120]byte
}

// enter counts one more. The caller adds -1 to what it returns when it is done.
func (c *counter) enter() *atomic.Int64 {
	n := &c.shards[rand.Uint32()%shards].Int64
	n.Add(1)
	return n
}

func (c *counter) sum() int64 {
	var sum int64
	for i := range c.shards {
		sum += c.shards[i].Load()
	}
	return sum
}
