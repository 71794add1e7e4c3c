package cache

import (
	"slices"
	"sync"
)

// lentTurn is a load's right to go on the turn of another, whose loader waits for it: else each would wait for the other.
type lentTurn struct {
	key string // empty for a load without a claim

	mu   sync.Mutex
	lent bool
	wake func() // ends the wait for a turn of its own, or passes the turn on
}

func (l *lentTurn) lend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent = true
	if l.wake != nil {
		l.wake()
	}
}

// waits says what to do when the turn is lent; nil is nothing.
func (l *lentTurn) waits(wake func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake = wake; l.lent && wake != nil {
		wake()
	}
}

func (l *lentTurn) has() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lent
}

// turnQueue is who waits for a turn, by key. A loader that waits for a load which waits for the claim of one of them has to
// lend to that one, whose flight may be forgotten: a store that is running hears of the lease that it has left itself.
type turnQueue struct {
	mu    sync.Mutex
	byKey map[string]*queuedKey
}

type queuedKey struct {
	loads   []*lentTurn
	lenders int // who wait for a claim and have a turn to pass on
}

func (q *turnQueue) at(key string, change func(k *queuedKey)) {
	if key == "" {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.byKey[key]
	if k == nil {
		k = &queuedKey{}
		if q.byKey == nil {
			q.byKey = make(map[string]*queuedKey)
		}
		q.byKey[key] = k
	}
	if change(k); len(k.loads) == 0 && k.lenders == 0 {
		delete(q.byKey, key)
	}
}

// enter is for a load, or a batch, that is about to wait for a turn; wake ends that wait.
func (q *turnQueue) enter(lent []*lentTurn, wake func()) (leave func()) {
	for _, l := range lent {
		l.waits(wake)
		has := false
		q.at(l.key, func(k *queuedKey) {
			k.loads = append(k.loads, l)
			has = k.lenders > 0
		})
		if has {
			l.lend()
		}
	}
	return func() {
		for _, l := range lent {
			q.at(l.key, func(k *queuedKey) {
				k.loads = slices.DeleteFunc(k.loads, func(o *lentTurn) bool { return o == l })
			})
		}
	}
}

// passOn is for a load that is about to wait for a claim. Until done, a turn that is lent to it is lent to those of its key that
// wait for one.
func (q *turnQueue) passOn(l *lentTurn) (done func()) {
	lends := false
	l.waits(func() {
		if lends {
			return
		}
		lends = true
		var loads []*lentTurn
		q.at(l.key, func(k *queuedKey) {
			loads = slices.Clone(k.loads)
			k.lenders++
		})
		for _, o := range loads {
			o.lend()
		}
	})
	return func() {
		l.waits(nil)
		if lends {
			q.at(l.key, func(k *queuedKey) { k.lenders-- })
		}
	}
}
