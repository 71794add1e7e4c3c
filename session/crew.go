package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// change is what one request makes of a session.
type change struct {
	base   loaded // what it began with; stored and value may be those of a session that was renewed
	mine   []byte
	expiry time.Time
	idle   time.Duration

	stage stage
	lead  chan struct{} // it is its turn to store
	done  chan error    // somebody else has stored it, or failed
}

// stage is where a change is. The crews' lock guards it.
type stage int

const (
	waiting stage = iota
	leading
	taken
)

// crews are the changes of this process that are under way, by session. One of a crew stores; those that come meanwhile wait,
// and are then merged and stored together by the first of them. So nobody waits for more than the command that is under way
// and the next one, however many there are.
type crews struct {
	mu sync.Mutex
	by map[place]*crew
}

type crew struct {
	waiting []*change
	known   loaded // what was stored last
}

// enter reports whether c is alone, and so the one to store.
func (h *crews) enter(c *change) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if there, ok := h.by[c.base.at]; ok {
		c.lead, c.done = make(chan struct{}, 1), make(chan error, 1)
		there.waiting = append(there.waiting, c)
		return false
	}
	if h.by == nil {
		h.by = map[place]*crew{}
	}
	c.stage = leading
	h.by[c.base.at] = &crew{}
	return true
}

// leave is for who has no time any more.
func (h *crews) leave(c *change) {
	h.mu.Lock()
	there := h.by[c.base.at]
	switch c.stage {
	case waiting:
		there.waiting = slices.DeleteFunc(there.waiting, func(o *change) bool { return o == c })
		h.mu.Unlock()
	case leading:
		known := there.known
		h.mu.Unlock()
		h.pass(c.base.at, known, nil)
	default:
		h.mu.Unlock()
	}
}

// take returns all that wait, after c, and what is known to be stored.
func (h *crews) take(c *change) ([]*change, loaded) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there := h.by[c.base.at]
	all := append([]*change{c}, there.waiting...)
	for _, o := range there.waiting {
		o.stage = taken
	}
	there.waiting = nil
	return all, there.known
}

// pass makes the next one store: of those that have to be stored once more, or that have come meanwhile.
func (h *crews) pass(at place, known loaded, again []*change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there := h.by[at]
	for _, c := range again {
		c.stage = waiting
	}
	there.waiting, there.known = append(again, there.waiting...), known
	if len(there.waiting) == 0 {
		delete(h.by, at)
		return
	}
	next := there.waiting[0]
	there.waiting = there.waiting[1:]
	next.stage = leading
	next.lead <- struct{}{}
}

// join has c stored, by itself or by another of its crew.
func (s *Store) join(ctx context.Context, c *change) error {
	if !s.crews.enter(c) {
		select {
		case err := <-c.done:
			return err
		case <-c.lead:
		case <-ctx.Done():
			s.crews.leave(c)
			return s.failed("commit", ctx.Err())
		}
	}
	all, known := s.crews.take(c)
	others, err := all[1:], errors.New("session: the merge of what was stored at the same time has panicked")
	var again []*change
	defer func() { // also when a codec panics
		for _, o := range others {
			o.done <- err
		}
		s.crews.pass(c.base.at, known, again)
	}()
	known, err = s.commitAll(ctx, all, known)
	if err != nil && ctx.Err() != nil {
		again, others = others, nil // it was this one's time that was over
	}
	return err
}
