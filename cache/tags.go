package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// tagHash stands for a tag in headers and keys.
type tagHash uint64

func hashTag(tag string) tagHash {
	h := fnv.New64a()
	h.Write([]byte(tag))
	return tagHash(h.Sum64())
}

// Tags names what a view's values depend on. Store.InvalidateTags then invalidates all entries, of all views, with one
// of its tags. At most 16 tags a value, each up to 256 bytes; a value with others is not cached. V is the view's type.
// Without it entries have none.
func Tags[V any](of func(id string, value V) []string) ViewOption {
	return func(o *viewOptions) { o.tags = of }
}

const (
	maxTagBytes = 256
	maxTagState = 100_000
	// tagLife is how long a tag is remembered that nobody stores a value with or invalidates, at least half of it. An entry
	// whose tag is forgotten is a miss.
	tagLife = 30 * 24 * time.Hour
	// tagCheck is how often a process sees to it that a tag that it uses is remembered.
	tagCheck = tagLife / 30
)

// tagState is what a process knows of a tag: entries that were filled in an earlier epoch are gone.
type tagState struct {
	epoch epoch
	cover *cover
	slot  uint16
	dead  atomic.Bool
}

func (t *tagState) holds(s *Store, now time.Duration) bool {
	return !t.dead.Load() && s.coverage.holds(t.cover, t.slot, now)
}

// tagStates are the tags that a process knows while it is told of their changes.
type tagStates struct {
	mu    sync.Mutex
	fence uint64
	known map[tagHash]*tagState
	lost  epoch // the last of those that were forgotten because they were too many
	// used says, by the store's clock, when a tag that is used was last seen to.
	used map[tagHash]time.Duration
}

// due returns the tags that it is time to see to, which is done with that.
func (ts *tagStates) due(tags []tagHash, now time.Duration) (due []tagHash) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, tag := range tags {
		if at, known := ts.used[tag]; known && now-at < tagCheck {
			continue
		}
		if ts.used == nil || len(ts.used) >= maxTagState {
			ts.used = make(map[tagHash]time.Duration)
		}
		ts.used[tag] = now
		due = append(due, tag)
	}
	return due
}

func (ts *tagStates) forget(tag tagHash) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.fence++
	if t := ts.known[tag]; t != nil {
		t.dead.Store(true)
		delete(ts.known, tag)
	}
}

func (ts *tagStates) get(tag tagHash) *tagState {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.known[tag]
}

func (ts *tagStates) begin() uint64 {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.fence
}

// learn returns the state that entries are to be bound to: one that is known is what news of the tag reach.
func (ts *tagStates) learn(tag tagHash, t *tagState, fence uint64) *tagState {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.fence != fence || t.cover == nil {
		t.dead.Store(true) // good for the look-up that it was read for
		return t
	}
	if old := ts.known[tag]; old != nil {
		if old.epoch == t.epoch && old.cover == t.cover {
			return old
		}
		old.dead.Store(true)
	}
	if ts.known == nil || len(ts.known) >= maxTagState {
		for _, old := range ts.known {
			old.dead.Store(true)
			ts.lost = max(ts.lost, old.epoch)
		}
		ts.known = make(map[tagHash]*tagState)
	}
	ts.known[tag] = t
	return t
}

// here returns a tag's state in a store without Redis. One that is not known may have been, and be forgotten.
func (ts *tagStates) here(tag tagHash, c *cover) *tagState {
	if t := ts.get(tag); t != nil {
		return t
	}
	ts.mu.Lock()
	fence, lost := ts.fence, ts.lost
	ts.mu.Unlock()
	return ts.learn(tag, &tagState{cover: c, epoch: lost}, fence)
}

// tagsFor returns the tags of a value.
func (v *View[V]) tagsFor(id string, value V) ([]tagHash, error) {
	if v.tags == nil {
		return nil, nil
	}
	names := v.tags(id, value)
	if len(names) > maxTags {
		return nil, fmt.Errorf("cache: a value has %d tags, give at most %d; it is not stored", len(names), maxTags)
	}
	var tags []tagHash
	for _, name := range names {
		if name == "" || len(name) > maxTagBytes {
			return nil, fmt.Errorf("cache: a value has tag %q, give 1 to %d bytes; it is not stored", clip(name), maxTagBytes)
		}
		if tag := hashTag(name); !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

func (s *Store) tagKey(tag tagHash) string {
	return s.opts.Prefix + metaMark + "tag:" + strconv.FormatUint(uint64(tag), 16)
}

// tagsOf returns the states of tags; nil for one that Redis does not have.
func (s *Store) tagsOf(ctx context.Context, tags []tagHash) ([]*tagState, error) {
	states, errs := s.lookUpTags(ctx, tags)
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return states, nil
}

// lookUpTags is tagsOf with an error for each tag, or none at all.
func (s *Store) lookUpTags(ctx context.Context, tags []tagHash) (states []*tagState, errs []error) {
	states = make([]*tagState, len(tags))
	now := s.now()
	var missing []int
	for i, tag := range tags {
		if t := s.tags.get(tag); t != nil && t.holds(s, now) {
			states[i] = t
		} else {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return states, nil
	}
	fence := s.tags.begin()
	fetched := make([]*tagState, len(missing))
	errs = make([]error, len(tags))
	gets := make([]*redis.StringCmd, len(missing))
	s.askTags(ctx, len(missing), func(n int) tagHash { return tags[missing[n]] }, func(ctx context.Context, pipe redis.Pipeliner, n int, key string) redis.Cmder {
		slot := s.coverage.slot(key)
		fetched[n] = &tagState{slot: slot, cover: s.coverage.at(slot, now)}
		gets[n] = pipe.Get(ctx, key)
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
		states[i] = s.tags.learn(tags[i], t, fence)
	}
	return states, errs
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

func (m *standingMany) standing(h header) ([]*tagState, bool, error) {
	states := make([]*tagState, len(h.tags))
	for n, tag := range h.tags {
		i := m.at[tag]
		if m.errs != nil && m.errs[i] != nil {
			return nil, false, m.errs[i]
		}
		states[n] = m.states[i]
	}
	return stand(states, h)
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
	return stand(states, h)
}

func stand(states []*tagState, h header) ([]*tagState, bool, error) {
	for _, t := range states {
		if t == nil || t.epoch > h.epoch { // a tag that Redis has forgotten may have been invalidated
			return nil, false, nil
		}
	}
	return states, true, nil
}

// introduce makes Redis remember tags that it does not, as of now: entries from before then have them in doubt.
func (s *Store) introduce(ctx context.Context, tags []tagHash) error {
	states, err := s.tagsOf(ctx, tags)
	if err != nil {
		return err
	}
	known := make([]tagHash, 0, len(tags))
	for i, tag := range tags {
		if states[i] != nil {
			known = append(known, tag)
		}
	}
	if due := s.tags.due(known, s.now()); len(due) > 0 {
		s.renew(ctx, due)
	}
	if !slices.Contains(states, nil) {
		return nil
	}
	now, err := s.readClock(ctx)
	if err != nil {
		return err
	}
	var unknown []tagHash
	for i, tag := range tags {
		if states[i] == nil {
			unknown = append(unknown, tag)
		}
	}
	return s.tellTags(ctx, unknown, func(ctx context.Context, pipe redis.Pipeliner, key string) redis.Cmder {
		return pipe.SetArgs(ctx, key, uint64(now), redis.SetArgs{Mode: "NX", TTL: tagLife})
	})
}

// renewTagScript makes a tag be remembered for longer when half of its life is over: all processes are told of that. KEYS: tag.
// ARGV: TTL in ms.
var renewTagScript = redis.NewScript(`
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > ARGV[1] / 2 then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])`)

// renew makes tags that are used be remembered. What fails is tried again after tagCheck.
func (s *Store) renew(ctx context.Context, tags []tagHash) {
	err := s.tellTags(ctx, tags, func(ctx context.Context, pipe redis.Pipeliner, key string) redis.Cmder {
		return renewTagScript.Eval(ctx, pipe, []string{key}, tagLife.Milliseconds())
	})
	if err != nil {
		s.in.failed(ctx, "tags", err)
	}
}

// tellTags is askTags for commands whose answers do not matter. It returns the first error.
func (s *Store) tellTags(ctx context.Context, tags []tagHash, command func(ctx context.Context, pipe redis.Pipeliner, key string) redis.Cmder) error {
	sent := make([]redis.Cmder, 0, len(tags))
	var errs []error
	s.askTags(ctx, len(tags), func(n int) tagHash { return tags[n] }, func(ctx context.Context, pipe redis.Pipeliner, _ int, key string) redis.Cmder {
		sent = append(sent, command(ctx, pipe, key))
		return sent[len(sent)-1]
	}, func(_ int, err error) { errs = append(errs, err) })
	for _, cmd := range sent {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			errs = append(errs, err)
		}
	}
	return firstOf(errs)
}

// InvalidateTags invalidates all entries that have one of the tags (see Tags), in all processes, at once: one command a
// tag, however many entries. When it returned nil, no look-up that begins after it, here or where the news has arrived
// (milliseconds later), returns what was loaded before it, and no load from before it is stored. The memory is given back
// when entries are looked up or end. An error says that some tags may not be invalidated; call again.
func (s *Store) InvalidateTags(ctx context.Context, tags ...string) error {
	if err := checkTags(tags); err != nil || len(tags) == 0 {
		return err
	}
	var errs []error
	if s.rdb == nil {
		e := s.clock.learn(epoch(s.clock.known.Load() + 1))
		for _, tag := range tags {
			s.tags.forget(hashTag(tag))
			s.tags.learn(hashTag(tag), &tagState{epoch: e, cover: s.coverage.at(0, s.now())}, s.tags.begin())
		}
		s.forgetFlights()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	keys := []string{s.clockKey()}
	for _, tag := range tags {
		keys = append(keys, s.tagKey(hashTag(tag)))
	}
	changed := s.changing(ctx, keys...)
	e, err := s.tick(ctx)
	if err != nil {
		_ = changed(err)
		for _, tag := range tags { // what is kept in the process is not for when the origin fails, either
			s.tags.forget(hashTag(tag))
		}
		return fmt.Errorf("cache: no tag was invalidated, call again: %w", err)
	}
	pipe := s.rdb.Pipeline()
	sets := make([]*redis.Cmd, len(tags))
	for i, tag := range tags {
		sets[i] = raiseTagScript.Eval(ctx, pipe, []string{s.tagKey(hashTag(tag))}, uint64(e), tagLife.Milliseconds())
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, tag := range tags {
		s.tags.forget(hashTag(tag))
		if err := sets[i].Err(); err != nil {
			errs = append(errs, fmt.Errorf("cache: tag %q was not invalidated, call again: %w", clip(tag), err))
		}
	}
	s.forgetFlights()
	return changed(errors.Join(errs...))
}

func checkTags(tags []string) error {
	var errs []error
	for _, tag := range tags {
		if tag == "" || len(tag) > maxTagBytes {
			errs = append(errs, fmt.Errorf("cache: tag %q, give 1 to %d bytes", clip(tag), maxTagBytes))
		}
	}
	return errors.Join(errs...)
}

// raiseTagScript notes the epoch of a tag's invalidation, the later of two. KEYS: tag. ARGV: epoch, TTL in ms.
var raiseTagScript = redis.NewScript(`
local e = ARGV[1]
local was = redis.call('GET', KEYS[1])
if was and tonumber(was) > tonumber(e) then e = was end
redis.call('SET', KEYS[1], e, 'PX', ARGV[2])
return 1`)

// forgetFlights makes later callers not share the loads that run now.
func (s *Store) forgetFlights() {
	for _, v := range s.declared() {
		v.forget()
	}
}
