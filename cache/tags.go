package cache

import (
	"cmp"
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

	"github.com/scaleaware/scaleaware"
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
	floor *floor // for later ones, or nil
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
		if old.epoch == t.epoch && old.cover == t.cover && t.floor == nil {
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
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	pipe := s.rdb.Pipeline()
	gets, floors := make([]*redis.StringCmd, len(missing)), make([]*redis.StringCmd, len(missing))
	for n, i := range missing {
		slot := s.coverage.slot(s.tagKey(tags[i]))
		fetched[n] = &tagState{slot: slot, cover: s.coverage.at(slot, now)}
		gets[n] = pipe.Get(ctx, s.tagKey(tags[i]))
		floors[n] = pipe.Get(ctx, s.tagFloorKey(tags[i])) // after it: whoever raises both begins with the floor
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	errs = make([]error, len(tags))
	for n, i := range missing {
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

// introduce makes Redis remember tags that it does not, as of now: entries from before then have them in doubt. It
// returns what is known of each, nil for a new one.
func (s *Store) introduce(ctx context.Context, tags []tagHash) ([]*tagState, error) {
	states, err := s.tagsOf(ctx, tags)
	if err != nil {
		return nil, err
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
		return states, nil
	}
	now, err := s.readClock(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	pipe := s.rdb.Pipeline()
	for i, tag := range tags {
		if states[i] == nil {
			pipe.SetArgs(ctx, s.tagKey(tag), uint64(now), redis.SetArgs{Mode: "NX", TTL: tagLife})
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	return states, nil
}

// renewTagScript makes a tag be remembered for longer when half of its life is over: all processes are told of that. KEYS: tag.
// ARGV: TTL in ms.
var renewTagScript = redis.NewScript(`
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > ARGV[1] / 2 then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])`)

// renew makes tags that are used be remembered. What fails is tried again after tagCheck.
func (s *Store) renew(ctx context.Context, tags []tagHash) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	pipe := s.rdb.Pipeline()
	for _, tag := range tags {
		renewTagScript.Eval(ctx, pipe, []string{s.tagKey(tag)}, tagLife.Milliseconds())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		s.in.failed(ctx, "tags", err)
	}
}

// InvalidateTags invalidates all entries that have one of the tags (see Tags), in all processes, at once: one command a
// tag, however many entries. When it returned nil, no look-up that begins after it, here or where the news has arrived
// (milliseconds later), returns what was loaded before it, and no load from before it is stored. The memory is given back
// when entries are looked up or end. When the caller's context carries what it wrote, nothing that is known to be older is
// stored for a minute, nor served, as with Invalidate. An error says that some tags may not be invalidated; call again. A
// store that is running goes on trying by itself, too.
func (s *Store) InvalidateTags(ctx context.Context, tags ...string) error {
	if err := checkTags(tags); err != nil || len(tags) == 0 {
		return err
	}
	hashes := make([]tagHash, len(tags))
	for i, tag := range tags {
		hashes[i] = hashTag(tag)
	}
	if s.rdb == nil {
		e := s.clock.learn(epoch(s.clock.known.Load() + 1))
		for _, tag := range hashes {
			s.tags.forget(tag)
			s.tags.learn(tag, &tagState{epoch: e, cover: s.coverage.at(0, s.now())}, s.tags.begin())
		}
		s.forgetFlights()
		return nil
	}
	var errs []error
	for i, err := range s.raiseTags(ctx, hashes, written(ctx)) {
		if err != nil {
			errs = append(errs, fmt.Errorf("cache: tag %q was not invalidated, call again: %w", clip(tags[i]), err))
		}
	}
	return errors.Join(errs...)
}

// raiseTags invalidates tags, and says of each what went wrong, which it then owes. Loads that are older than floor are not
// stored afterwards.
func (s *Store) raiseTags(ctx context.Context, tags []tagHash, floor scaleaware.Tokens) []error {
	owed := s.debts.owedTags(tags)
	for _, debt := range owed {
		floor = floor.Merge(debt.floor)
	}
	errs := s.raise(ctx, tags, floor)
	for i, tag := range tags {
		debt, known := owed[tag]
		switch {
		case errs[i] != nil && (!known || !debt.floor.Includes(floor)):
			s.debts.oweTag(s, tag, floor)
		case errs[i] == nil && known:
			s.debts.settleTag(tag, debt)
		}
	}
	return errs
}

func (s *Store) raise(ctx context.Context, tags []tagHash, floor scaleaware.Tokens) []error {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	keys := []string{s.clockKey()}
	for _, tag := range tags {
		keys = append(keys, s.tagKey(tag))
	}
	changed := s.changing(ctx, keys...)
	errs := make([]error, len(tags))
	e, err := s.tick(ctx)
	for err == nil { // again when the clock was behind
		var later epoch
		if later, errs = s.raiseOnce(ctx, tags, e, floor); later <= e {
			break
		}
		s.clock.learn(later)
		e, err = s.tick(ctx)
	}
	for i, tag := range tags {
		s.tags.forget(tag)
		errs[i] = cmp.Or(err, errs[i])
	}
	s.forgetFlights()
	none := errs[0]
	for _, err := range errs {
		if err == nil {
			none = nil
		}
	}
	if untold := changed(none); untold != nil {
		for i := range errs {
			errs[i] = cmp.Or(errs[i], untold)
		}
	}
	return errs
}

// raiseOnce notes an epoch for tags. It returns the latest that one of them has.
func (s *Store) raiseOnce(ctx context.Context, tags []tagHash, e epoch, floor scaleaware.Tokens) (later epoch, errs []error) {
	pipe := s.rdb.Pipeline()
	floors, sets := make([]*redis.Cmd, len(tags)), make([]*redis.Cmd, len(tags))
	for i, tag := range tags {
		if len(floor) > 0 {
			floors[i] = tagFloorScript.Eval(ctx, pipe, []string{s.tagFloorKey(tag)}, s.floorArgs(floor)...)
		}
		sets[i] = raiseTagScript.Eval(ctx, pipe, []string{s.tagKey(tag)}, uint64(e), tagLife.Milliseconds())
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	errs = make([]error, len(tags))
	for i := range tags {
		if floors[i] != nil {
			errs[i] = floors[i].Err()
		}
		n, err := sets[i].Uint64()
		later, errs[i] = max(later, epoch(n)), cmp.Or(errs[i], err)
	}
	return later, errs
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

// raiseTagScript notes the epoch of a tag's invalidation, the later of two, which it returns. KEYS: tag. ARGV: epoch, TTL in
// ms.
var raiseTagScript = redis.NewScript(`
local e = ARGV[1]
local was = redis.call('GET', KEYS[1])
if was and tonumber(was) > tonumber(e) then e = was end
redis.call('SET', KEYS[1], e, 'PX', ARGV[2])
return e`)

// forgetFlights makes later callers not share the loads that run now.
func (s *Store) forgetFlights() {
	for _, v := range s.declared() {
		v.forget()
	}
}
