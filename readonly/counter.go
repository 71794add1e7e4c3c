package readonly

import (
	"sync/atomic"
	"unsafe"
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
	n := &c.shards[here()%shards].Int64
	n.Add(1)
	return n
}

// here is a number that differs between goroutines which run at the same time, mostly: it says where their stacks lie. A shard
// that several processors write to goes back and forth between their caches, which takes longer than all else.
func here() uint32 {
	var onStack byte
	at := uintptr(unsafe.Pointer(&onStack)) // #nosec G103 -- looked at, never used as an address
	return uint32(at>>11) * 0x9e3779b1 >> 16
}

func (c *counter) sum() int64 {
	var sum int64
	for i := range c.shards {
		sum += c.shards[i].Load()
	}
	return sum
}
