package cache

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// tagsOf returns the states of tags; nil for one that Redis does not have.
func (s *Store) tagsOf(ctx context.Context, tags []tagHash) ([]*tagState, error) {
	states, errs := s.lookUpTags(ctx, tags)
	if err := firstOf(errs); err != nil {
		return nil, err
	}
	return states, nil
}

// lookUpTags is tagsOf with an error for each tag, or none at all.
func (s *Store) lookUpTags(ctx context.Context, tags []tagHash) (states []*tagState, errs []error) {
	now := s.now()
	states, missing := s.tagsHere(tags, now)
	if len(missing) == 0 {
		return states, nil
	}
	fence := s.tags.begin()
	fetched := make([]*tagState, len(missing))
	errs = make([]error, len(tags))
	gets, floors := make([]*redis.StringCmd, len(missing)), make([]*redis.StringCmd, len(missing))
	s.askTags(ctx, len(missing), func(n int) tagHash { return tags[missing[n]] }, func(ctx context.Context, pipe redis.Pipeliner, n int, key string) redis.Cmder {
		slot := s.coverage.slot(key)
		fetched[n] = &tagState{slot: slot, cover: s.coverage.at(slot, now)}
		gets[n] = pipe.Get(ctx, key)
		floors[n] = pipe.Get(ctx, s.tagFloorKey(tags[missing[n]])) // after it: whoever raises both begins with the floor
		return gets[n]
	}, func(n int, err error) { errs[missing[n]] = err })
	for n, i := range missing {
		if gets[n] == nil {
			continue
		}
		number, err := gets[n].Uint64()
		switch {
		case errors.Is(err, redis.Nil):
			continue
		case err != nil:
			errs[i] = err
			continue
		}
		t := fetched[n]
		t.epoch = epoch(number)
		s.clock.learn(t.epoch) // which may come before the news of the clock
		if text, err := floors[n].Result(); err == nil {
			if f, ok := parseFloor(text); ok {
				t.floor = &f
			}
		} else if !errors.Is(err, redis.Nil) {
			errs[i] = err
			continue
		}
		states[i] = s.tags.learn(tags[i], t, fence)
	}
	return states, errs
}

// tagsHere returns the states of tags that the process knows, and which are missing.
func (s *Store) tagsHere(tags []tagHash, now time.Duration) (states []*tagState, missing []int) {
	states = make([]*tagState, len(tags))
	for i, tag := range tags {
		if t := s.tags.get(tag); t != nil && t.holds(s, now) {
			states[i] = t
		} else {
			missing = append(missing, i)
		}
	}
	return states, missing
}

// askTags sends a command for each of n tags, but to masters that are left alone, of whose tags it says so.
func (s *Store) askTags(ctx context.Context, n int, tag func(int) tagHash, command func(ctx context.Context, pipe redis.Pipeliner, n int, key string) redis.Cmder, refused func(int, error)) {
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	masters, pipe := make(passes, 0, 4), s.rdb.Pipeline()
	asked, of := make([]redis.Cmder, n), make([]int, n)
	for i := range n {
		key := s.tagKey(tag(i))
		of[i] = masters.enter(s.coverage.guard(s.coverage.slot(key)))
		if err := masters[of[i]].refused; err != nil {
			refused(i, err)
			continue
		}
		asked[i] = command(rctx, pipe, i, key)
	}
	if pipe.Len() > 0 {
		_, _ = pipe.Exec(rctx) // each command has its own error
	}
	for i, cmd := range asked {
		if cmd != nil {
			masters.note(of[i], cmd.Err())
		}
	}
	s.leave(ctx, masters)
}

// standingMany is standing for entries that were looked up together: all tags are looked up at once.
type standingMany struct {
	at     map[tagHash]int // in states and errs
	tags   []tagHash
	states []*tagState
	errs   []error
}

func (m *standingMany) add(h header) {
	if m.at == nil {
		m.at = make(map[tagHash]int)
	}
	for _, tag := range h.tags {
		if _, known := m.at[tag]; !known {
			m.at[tag] = len(m.tags)
			m.tags = append(m.tags, tag)
		}
	}
}

func (m *standingMany) lookUp(ctx context.Context, s *Store) {
	m.states, m.errs = s.lookUpTags(ctx, m.tags)
}

func (m *standingMany) standing(s *Store, h header) ([]*tagState, bool, error) {
	states := make([]*tagState, len(h.tags))
	for n, tag := range h.tags {
		i := m.at[tag]
		if m.errs != nil && m.errs[i] != nil {
			return nil, false, m.errs[i]
		}
		states[n] = m.states[i]
	}
	return s.stand(states, h)
}

// standing reports whether no tag of an entry was invalidated since it was filled. The states are to bind what is kept
// in the process to.
func (s *Store) standing(ctx context.Context, h header) ([]*tagState, bool, error) {
	if len(h.tags) == 0 {
		return nil, true, nil
	}
	states, err := s.tagsOf(ctx, h.tags)
	if err != nil {
		return nil, false, err
	}
	return s.stand(states, h)
}

func (s *Store) stand(states []*tagState, h header) ([]*tagState, bool, error) {
	for _, t := range states {
		if t == nil || t.epoch > h.epoch || // a tag that Redis has forgotten may have been invalidated
			t.floor != nil && t.floor.overtakes(h.asOf, s.nodeTime(t.slot, s.now())) {
			return nil, false, nil
		}
	}
	return states, true, nil
}
