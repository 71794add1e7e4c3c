package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// InvalidateTags invalidates all entries that have one of the tags (see Tags), in all processes, at once: one command a
// tag, however many entries. When it returned nil, no look-up that begins after it, here or where the news has arrived
// (milliseconds later), returns what was loaded before it, and no load from before it is stored. The memory is given back
// when entries are looked up or end. When the caller's context carries what it wrote, nothing that is known to be older is
// stored for a minute, nor served, whichever replica it was read from, by any store with Redis. An error says that some tags may not be
// invalidated; call again. A store that is running goes on trying by itself, too.
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
	floor := written(ctx)
	failed := s.raiseTags(ctx, hashes, floor)
	for i, tag := range tags {
		if failed[i] != nil {
			s.debts.oweTag(s, hashes[i], floor) // anew: an earlier one may be made good for from before now
			failed[i] = fmt.Errorf("cache: tag %q was not invalidated, call again: %w", clip(tag), failed[i])
		}
	}
	return errors.Join(failed...)
}

// raiseTags invalidates tags, which settles what is owed of them, and says of each what went wrong. Loads that are older than
// floor are not stored afterwards.
func (s *Store) raiseTags(ctx context.Context, tags []tagHash, floor scaleaware.Tokens) []error {
	owed := s.debts.owedTags(tags)
	for _, debt := range owed {
		floor = floor.Merge(debt.floor)
	}
	errs := s.raise(ctx, tags, floor)
	for i, tag := range tags {
		if debt, known := owed[tag]; known && errs[i] == nil {
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
redis.call('PERSIST', KEYS[1]) -- for a server that is full
redis.call('SET', KEYS[1], e, 'PX', ARGV[2])
return e`)

// forgetFlights makes later callers not share the loads that run now.
func (s *Store) forgetFlights() {
	for _, v := range s.declared() {
		v.forget()
	}
}
