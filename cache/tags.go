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
func (v *View[V]) tagsFor(id string, value V) (tags []tagHash, err error) {
	if v.tags == nil {
		return nil, nil
	}
	defer caught("Tags function", &err)
	names := v.tags(id, value)
	if len(names) > maxTags {
		return nil, fmt.Errorf("cache: a value has %d tags, give at most %d; it is not stored", len(names), maxTags)
	}
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

// introduce makes Redis remember tags that it does not, as of now: entries from before then have them in doubt. It
// returns what is known of each, nil for a new one.
func (s *Store) introduce(ctx context.Context, tags []tagHash) ([]*tagState, error) {
	states, errs := s.introduceEach(ctx, tags)
	if err := firstOf(errs); err != nil {
		return nil, err
	}
	return states, nil
}

// introduceEach is introduce with an error for each tag, or none at all.
func (s *Store) introduceEach(ctx context.Context, tags []tagHash) (states []*tagState, errs []error) {
	states, errs = s.lookUpTags(ctx, tags)
	known := make([]tagHash, 0, len(tags))
	for i, tag := range tags {
		if states[i] != nil {
			known = append(known, tag)
		}
	}
	if due := s.tags.due(known, s.now()); len(due) > 0 {
		s.renew(ctx, due)
	}
	var unknown []tagHash
	var of []int // of unknown, which tag
	for i, tag := range tags {
		if states[i] == nil && errs[i] == nil {
			unknown, of = append(unknown, tag), append(of, i)
		}
	}
	if len(unknown) == 0 {
		return states, errs
	}
	now, err := s.readClock(ctx)
	told := make([]error, len(unknown))
	if err == nil {
		told = s.tellTags(ctx, unknown, func(ctx context.Context, pipe redis.Pipeliner, key string) redis.Cmder {
			return pipe.SetArgs(ctx, key, uint64(now), redis.SetArgs{Mode: "NX", TTL: tagLife})
		})
	}
	for n, i := range of {
		errs[i] = cmp.Or(err, told[n])
	}
	return states, errs
}

// renewTagScript makes a tag be remembered for longer when half of its life is over: all processes are told of that. KEYS: tag.
// ARGV: TTL in ms.
var renewTagScript = redis.NewScript(`
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > ARGV[1] / 2 then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])`)

// renew makes tags that are used be remembered. What fails is tried again after tagCheck.
func (s *Store) renew(ctx context.Context, tags []tagHash) {
	errs := s.tellTags(ctx, tags, func(ctx context.Context, pipe redis.Pipeliner, key string) redis.Cmder {
		return renewTagScript.Eval(ctx, pipe, []string{key}, tagLife.Milliseconds())
	})
	if err := firstOf(errs); err != nil {
		s.in.failed(ctx, "tags", err)
	}
}

// tellTags is askTags for commands whose answers do not matter. It returns the error of each.
func (s *Store) tellTags(ctx context.Context, tags []tagHash, command func(ctx context.Context, pipe redis.Pipeliner, key string) redis.Cmder) []error {
	sent, errs := make([]redis.Cmder, len(tags)), make([]error, len(tags))
	s.askTags(ctx, len(tags), func(n int) tagHash { return tags[n] }, func(ctx context.Context, pipe redis.Pipeliner, n int, key string) redis.Cmder {
		sent[n] = command(ctx, pipe, key)
		return sent[n]
	}, func(n int, err error) { errs[n] = err })
	for n, cmd := range sent {
		if cmd == nil {
			continue
		}
		if err := cmd.Err(); !errors.Is(err, redis.Nil) {
			errs[n] = err
		}
	}
	return errs
}
