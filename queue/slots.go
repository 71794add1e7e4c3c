package queue

import (
	"slices"
	"sync"
)

// slots shares a worker's slots between its queues. Isolated queues have some of their own.
type slots struct {
	mu       sync.Mutex
	target   int
	weights  []int // 0 for an isolated queue
	own      []int // of isolated queues
	reserve  []int
	inflight []int
	wake     []chan struct{}
}

func newSlots(target int, queues []Queue) *slots {
	s := &slots{
		target: target, weights: make([]int, len(queues)), own: make([]int, len(queues)),
		inflight: make([]int, len(queues)), wake: make([]chan struct{}, len(queues)),
	}
	for i, q := range queues {
		if s.own[i] = q.Isolated; q.Isolated == 0 {
			s.weights[i] = max(1, q.Weight)
		}
		s.wake[i] = make(chan struct{}, 1)
	}
	s.reserve = reserves(target, s.weights)
	return s
}

// reserves returns how many slots are kept for each queue while others have a backlog: half of its share by
// weight, at least one. Where there are fewer slots than queues nothing is kept, or the last ones would never run.
func reserves(target int, weights []int) []int {
	kept := make([]int, len(weights))
	sum, sharing := 0, 0
	for _, w := range weights {
		sum += w
		if w > 0 {
			sharing++
		}
	}
	if target < sharing {
		return kept
	}
	total := 0
	for i, w := range weights {
		if w > 0 {
			kept[i] = max(1, target*w/(2*sum))
			total += kept[i]
		}
	}
	for total > target { // many light queues beside a heavy one: the ones are worth more than the heavy one's half
		heaviest := 0
		for i := range kept {
			if kept[i] > kept[heaviest] {
				heaviest = i
			}
		}
		kept[heaviest]--
		total--
	}
	return kept
}

// admit decides whether queue q may start one more job.
func admit(target int, reserve, inflight []int, q int) bool {
	free := target
	for i := range inflight {
		free -= inflight[i]
		if i != q {
			free -= max(0, reserve[i]-inflight[i])
		}
	}
	return free > 0
}

// take reserves up to n slots for queue q and returns how many.
func (s *slots) take(q, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := 0
	for ; taken < n && s.free(q); taken++ {
		s.inflight[q]++
	}
	return taken
}

// isolated reports whether queue q has slots of its own.
func (s *slots) isolated(q int) bool { return s.weights[q] == 0 }

// free reports whether queue q may start one more job.
func (s *slots) free(q int) bool {
	if s.isolated(q) {
		return s.target > 0 && s.inflight[q] < s.own[q]
	}
	return admit(s.target, s.reserve, s.shared(), q)
}

// shared are the jobs in flight that use shared slots.
func (s *slots) shared() []int {
	if !slices.Contains(s.weights, 0) {
		return s.inflight
	}
	shared := slices.Clone(s.inflight)
	for i := range shared {
		if s.isolated(i) {
			shared[i] = 0
		}
	}
	return shared
}

// give returns slots and wakes whoever waits for one.
func (s *slots) give(q, n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	s.inflight[q] -= n
	s.mu.Unlock()
	s.notify()
}

func (s *slots) resize(target int) {
	s.mu.Lock()
	s.target = target
	s.reserve = reserves(target, s.weights)
	s.mu.Unlock()
	s.notify()
}

// resizeOwn changes the slots of an isolated queue.
func (s *slots) resizeOwn(q, n int) {
	s.mu.Lock()
	s.own[q] = n
	s.mu.Unlock()
	s.notify()
}

func (s *slots) notify() {
	for _, c := range s.wake {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// busy returns how many jobs are between fetch and the return of their handler.
func (s *slots) busy() int { return s.busyOf(func(int) bool { return true }) }

// busyOf is busy for some queues.
func (s *slots) busyOf(counts func(queue int) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for i, running := range s.inflight {
		if counts(i) {
			n += running
		}
	}
	return n
}

// size returns the number of slots.
func (s *slots) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target
}

// sizeOf returns the number of slots that queue q may have at most.
func (s *slots) sizeOf(q int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isolated(q) && s.target > 0 {
		return s.own[q]
	}
	return s.target
}
