package queue

import "sync"

// slots shares a worker's slots between its queues.
type slots struct {
	mu       sync.Mutex
	target   int
	weights  []int
	reserve  []int
	inflight []int
	wake     []chan struct{}
}

func newSlots(target int, weights []int) *slots {
	s := &slots{target: target, weights: weights, inflight: make([]int, len(weights)), wake: make([]chan struct{}, len(weights))}
	for i := range s.wake {
		s.wake[i] = make(chan struct{}, 1)
	}
	s.reserve = reserves(target, weights)
	return s
}

// reserves returns how many slots are kept for each queue while others have a backlog: half of its share by
// weight, at least one. Where there are fewer slots than queues nothing is kept, or the last ones would never run.
func reserves(target int, weights []int) []int {
	kept := make([]int, len(weights))
	if target < len(weights) {
		return kept
	}
	sum := 0
	for _, w := range weights {
		sum += w
	}
	total := 0
	for i, w := range weights {
		kept[i] = max(1, target*w/(2*sum))
		total += kept[i]
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

// take reserves a slot for queue q.
func (s *slots) take(q int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !admit(s.target, s.reserve, s.inflight, q) {
		return false
	}
	s.inflight[q]++
	return true
}

// give returns a slot and wakes whoever waits for one.
func (s *slots) give(q int) {
	s.mu.Lock()
	s.inflight[q]--
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
