package cache

import (
	"context"
	"sync"

	"github.com/scaleaware/scaleaware"
)

// flight is one running load that callers share.
type flight[V any] struct {
	need scaleaware.Tokens
	done chan struct{} // closed when the rest is set
	once sync.Once

	value   V
	payload []byte // encoded value, to decode for each further waiter; nil when it could not be encoded
	plain   uint32 // size of a payload that is compressed, else 0
	asOf    scaleaware.Tokens
	wrote   scaleaware.Tokens // by the loader itself, or seen by it where that counts
	settled scaleaware.Tokens // where the primary stood after unknown positions among need
	err     error

	turn lentTurn
}

// flights are the running loads of a view by key.
type flights[V any] struct {
	mu  sync.Mutex
	own map[string]*flight[V]
}

// join returns the running load of key if it sees all that need names, or else begins a new one, which takes its place
// for later callers.
func (fs *flights[V]) join(key string, need scaleaware.Tokens) (f *flight[V], began bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f = fs.own[key]; f != nil {
		if len(need) == 0 || f.need.Covers(need) {
			return f, false
		}
		need = f.need.Merge(need)
	}
	f = &flight[V]{need: need, done: make(chan struct{}), turn: lentTurn{key: key}}
	if fs.own == nil {
		fs.own = make(map[string]*flight[V])
	}
	fs.own[key] = f
	return f, true
}

// finish hands the result to all waiters. Only the first call counts.
func (fs *flights[V]) finish(key string, f *flight[V], set func()) {
	f.once.Do(func() {
		set()
		fs.mu.Lock()
		if fs.own[key] == f {
			delete(fs.own, key)
		}
		fs.mu.Unlock()
		close(f.done)
	})
}

// forget makes later callers not share the load of key that runs now.
func (fs *flights[V]) forget(key string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.own, key)
}

func (fs *flights[V]) forgetAll() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	clear(fs.own)
}

// wait returns the result, or the caller's own end. The load goes on without it.
func (f *flight[V]) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	default:
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
