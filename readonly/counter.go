package readonly

import (
	"sync"
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
	t := turns.Get().(*turn)
	n := &c.shards[t.shard].Int64
	turns.Put(t)
	n.Add(1)
	return n
}

// turns has a turn for each processor, which finds its own again. A shard that several processors write to goes back and
// forth between their caches, which takes longer than all else.
var turns = sync.Pool{New: func() any { return &turn{shard: made.Add(1) % shards} }}

var made atomic.Uint32

type turn struct{ shard uint32 }

func (c *counter) sum() int64 {
	var sum int64
	for i := range c.shards {
		sum += c.shards[i].Load()
	}
	return sum
}
