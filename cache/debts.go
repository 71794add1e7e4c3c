package cache

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	debtEvery    = 500 * time.Millisecond
	reclaimEvery = 10 * time.Second
	reclaimLease = 30 * time.Second
	// maxDebts is how many keys are remembered that could not be deleted; beyond it, all of the cache is invalidated
	// when Redis is back.
	maxDebts  = 10_000
	debtBatch = 500
	// debtPause is the longest wait before a pattern is tried again.
	debtPause = 10 * time.Second
)

// debts are invalidations that Redis could not be told. Callers got an error; a store that runs makes good for it when
// Redis is back, so that what they changed is not served till its TTL ends. One of a key stands for all, and what succeeds
// for it later settles it.
type debts struct {
	mu       sync.Mutex
	keys     map[string]header // the lease to leave
	tags     map[tagHash]debt
	patterns map[string]debt
	asked    uint64 // counts what was added to tags and patterns
}

// debt is what an invalidation of a tag or a pattern asked for.
type debt struct {
	floor scaleaware.Tokens
	asked uint64 // tells it from one that is owed anew
	swept bool   // all that a pattern names was removed since, and no rule could be made
	rule  epoch  // of what may bar a pattern by now, though nobody knows; 0 for none
	wait  time.Duration
	due   time.Duration // by the store's clock, when a pattern is tried again, after wait
}

func (d *debts) owe(s *Store, key string, floor scaleaware.Tokens) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys == nil {
		d.keys = make(map[string]header)
	}
	was, owed := d.keys[key]
	if !owed && len(d.keys) >= maxDebts {
		floor = known(floor)
		for _, lease := range d.keys {
			floor = floor.Merge(known(lease.asOf))
		}
		clear(d.keys)
		d.addPattern("*", floor, false)
		s.opts.Logger.Warn("cache: too many deletes failed to remember each, all entries will be invalidated when Redis is back", "prefix", s.opts.Prefix)
		return
	}
	d.keys[key] = newLease(higher(was.asOf, floor))
}

// owed returns what is owed of a key, to be settled when it was changed.
func (d *debts) owed(key string) (header, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.keys[key]
	return h, ok
}

// settle takes in that a key was changed since it was owed so, which is newer than what is owed. What is owed anew stays.
func (d *debts) settle(key string, was header) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h, ok := d.keys[key]; ok && h.gen == was.gen {
		delete(d.keys, key)
	}
}

func (d *debts) oweTag(s *Store, tag tagHash, floor scaleaware.Tokens) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tags == nil {
		d.tags = make(map[tagHash]debt)
	}
	was, known := d.tags[tag]
	d.asked++
	if !known && len(d.tags) >= maxDebts {
		for _, debt := range d.tags {
			floor = floor.Merge(debt.floor)
		}
		clear(d.tags)
		d.addPattern("*", floor, false)
		s.opts.Logger.Warn("cache: invalidations of too many tags failed to remember each, all entries will be invalidated when Redis is back", "prefix", s.opts.Prefix)
		return
	}
	d.tags[tag] = debt{floor: was.floor.Merge(floor), asked: d.asked}
}

// owedTags returns what is owed of some tags.
func (d *debts) owedTags(tags []tagHash) map[tagHash]debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	owed := make(map[tagHash]debt)
	for _, tag := range tags {
		if debt, ok := d.tags[tag]; ok {
			owed[tag] = debt
		}
	}
	return owed
}

func (d *debts) settleTag(tag tagHash, was debt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tags[tag].asked == was.asked {
		delete(d.tags, tag)
	}
}

// higher is the least that a load must have seen for two deletes, which may have unknown positions beside known ones.
func higher(a, b scaleaware.Tokens) scaleaware.Tokens {
	split := func(ts scaleaware.Tokens) (unknown, known scaleaware.Tokens) {
		for _, t := range ts {
			if t.Unknown() {
				unknown = append(unknown, t)
			} else {
				known = append(known, t)
			}
		}
		return unknown, known
	}
	unknownA, knownA := split(a)
	unknownB, knownB := split(b)
	return append(unknownA.Merge(unknownB), knownA.Merge(knownB)...)
}

// owePattern takes in that a pattern could not be invalidated, and whether all that it names was removed nevertheless.
func (d *debts) owePattern(pattern string, floor scaleaware.Tokens, swept bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addPattern(pattern, floor, swept)
}

// addPattern is owePattern for who holds mu.
func (d *debts) addPattern(pattern string, floor scaleaware.Tokens, swept bool) {
	if d.patterns == nil {
		d.patterns = make(map[string]debt)
	}
	if _, all := d.patterns["*"]; all {
		pattern = "*"
	}
	was, owed := d.patterns[pattern]
	d.asked++
	d.patterns[pattern] = debt{floor: was.floor.Merge(floor), asked: d.asked, swept: swept && (was.swept || !owed)}
	if len(d.patterns) > maxRules {
		for _, debt := range d.patterns {
			floor = floor.Merge(debt.floor)
		}
		d.patterns = map[string]debt{"*": {floor: floor, asked: d.asked}}
	}
}

func (d *debts) owedPattern(pattern string) debt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.patterns[pattern]
}

// settlePattern takes in that a pattern was invalidated since it was owed so, or else that all was removed.
func (d *debts) settlePattern(pattern string, was debt, done bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if owed, ok := d.patterns[pattern]; !ok || owed.asked != was.asked {
		return
	}
	if done {
		delete(d.patterns, pattern)
	} else {
		was.swept = true
		d.patterns[pattern] = was
	}
}

// postpone makes a pattern wait for longer that was tried in vain. Each rule that it may have left makes a miss of all that it
// names; without one, it is tried again as soon as Redis may be back.
func (d *debts) postpone(pattern string, tried debt, now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	owed, ok := d.patterns[pattern]
	if !ok || owed.asked != tried.asked || tried.rule == 0 {
		return
	}
	owed.wait = min(max(debtEvery, 2*owed.wait), debtPause)
	owed.due = now + owed.wait
	d.patterns[pattern] = owed
}

// payDebts tries once more what Redis could not be told.
func (s *Store) payDebts(ctx context.Context) error {
	s.debts.mu.Lock()
	keys, tags := slices.Collect(maps.Keys(s.debts.keys)), slices.Collect(maps.Keys(s.debts.tags))
	patterns := maps.Clone(s.debts.patterns)
	s.debts.mu.Unlock()
	var errs []error
	for batch := range slices.Chunk(keys, debtBatch) {
		errs = append(errs, s.payKeys(ctx, batch))
	}
	for batch := range slices.Chunk(tags, debtBatch) { // of which some may have been invalidated since
		if owed := s.debts.owedTags(batch); len(owed) > 0 {
			errs = append(errs, firstOf(s.raiseTags(ctx, slices.Collect(maps.Keys(owed)), nil)))
		}
	}
	for pattern, owed := range patterns {
		if s.now() < owed.due || s.debts.owedPattern(pattern).asked != owed.asked {
			continue
		}
		if _, err := s.invalidate(ctx, &Report{Pattern: pattern}, 0, &owed); err != nil {
			s.debts.postpone(pattern, owed, s.now())
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// payKeys deletes those of a batch that are owed still: what was set since the batches were made is newer.
func (s *Store) payKeys(ctx context.Context, batch []string) error {
	leases, calls, floored := make(map[string]header, len(batch)), make([]keyCall, 0, len(batch)), false
	for _, key := range batch {
		if lease, owed := s.debts.owed(key); owed {
			again := newLease(lease.asOf) // its like may stand there, and have been taken away since
			leases[key], calls = lease, append(calls, s.deletion(key, again))
			floored = floored || len(lease.asOf) > 0
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if floored {
		s.markLeases(ctx)
	}
	changed := s.changing(ctx, batch...)
	s.callMany(ctx, keyScript{one: deleteScript}, calls, s.stepTimeout())
	untold := changed(failedAll(calls))
	var errs []error
	for _, c := range calls {
		if err := cmp.Or(c.err, untold); err != nil {
			errs = append(errs, err)
		} else {
			s.debts.settle(c.key, leases[c.key])
		}
	}
	return firstOf(errs)
}

// reclaimMemory goes on with sweeps that were cut short, one process at a time.
func (s *Store) reclaimMemory(ctx context.Context) error {
	if err := s.noteAll(ctx); err != nil {
		s.in.failed(ctx, "memory", err)
	}
	rules := s.rules.Load()
	if rules.unsure() || len(rules.list)+len(rules.floors) == 0 {
		return nil
	}
	lease := redisclient.NewLease(s.rdb, s.opts.Prefix+metaMark+"sweeper", reclaimLease)
	mine, err := lease.Hold(ctx)
	if err != nil || !mine {
		return err
	}
	defer lease.Release(context.WithoutCancel(ctx))
	if err := s.endFloors(ctx); err != nil {
		return err
	}
	young := s.nodeTime(s.coverage.slot(s.clockKey()), s.now())*1000 - reclaimEvery.Microseconds()
	for _, r := range rules.list {
		if int64(r.epoch) > young {
			continue // whoever made it is at work
		}
		report := Report{Pattern: r.pattern}
		if err := s.sweep(ctx, &report, reclaimPause, s.unlinking()); err != nil {
			return err
		}
		if err := s.unbar(ctx, r.epoch); err != nil {
			return err
		}
	}
	return nil
}

// reclaimPause goes easy on Redis: what is reclaimed late is in nobody's way.
const reclaimPause = 5 * time.Millisecond

// settle brings the counts of hits in the process, and what is kept there, to where they are read.
func (s *Store) settle(context.Context) error {
	for _, v := range s.declared() {
		v.settle()
		if v.opts.inProcess {
			entries, bytes := v.residents()
			s.in.residents.WithLabelValues(v.name).Set(float64(entries))
			s.in.residentBytes.WithLabelValues(v.name).Set(float64(bytes))
		}
	}
	if s.rdb != nil {
		s.in.covered.WithLabelValues(s.opts.Prefix).Set(float64(s.coverage.covered(s.now())) / clusterSlots)
	}
	return nil
}
