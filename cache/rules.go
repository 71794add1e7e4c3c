package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware"
)

// rule says that what a pattern names is gone if it was filled in an epoch before this one. It makes an invalidation of
// any number of keys hold at once; the sweep behind it takes away the memory, and then the rule.
type rule struct {
	epoch   epoch
	pattern string
}

// rules are those that a process knows. They are not changed once they are published.
type rules struct {
	list   []rule
	floors []patternFloor
	count  int64  // of all rules that ever were
	since  string // tells these rules from others that were made when they had been lost
	asked  bool   // what is remembered of those that were lost was asked for
	cover  *cover // under which they were read
	slot   uint16
	fence  uint64 // as ruleState's when they were read
}

// ruleState is how a store follows the rules.
type ruleState struct {
	reading chan struct{} // holds one who reads them
	fence   atomic.Uint64 // counts the news that they have changed
	applied []epoch       // of the listed rules, those that were applied in the process
}

const (
	countField = "count"
	sinceField = "since"
)

// maxRules is how many rules there may be before they bar as one for everything does.
const maxRules = 64

func (s *Store) rulesKey() string { return s.opts.Prefix + metaMark + "rules" }

// current reports whether no rule can have been added unheard.
func (r *rules) current(s *Store, now time.Duration) bool {
	return r != nil && r.fence == s.ruling.fence.Load() && s.coverage.holds(r.cover, r.slot, now)
}

// unsure reports whether some may have been lost that nobody has looked for here.
func (r *rules) unsure() bool { return r == nil || !r.asked }

// bars reports whether an entry of an epoch is gone.
func (r *rules) bars(e epoch, view, id string) bool {
	if r == nil {
		return false
	}
	if n := len(r.list); n > maxRules {
		return e < r.list[n-1].epoch
	}
	for _, rule := range r.list {
		if e < rule.epoch && globMatch(rule.pattern, view+":"+id) {
			return true
		}
	}
	return false
}

// bar makes an invalidation hold in all processes and in this one before it returns, for loads that are older than floor, too. It
// returns the rule's epoch.
func (s *Store) bar(ctx context.Context, pattern string, floor scaleaware.Tokens) (epoch, error) {
	if s.rules.Load() == nil { // what is remembered of rules that were lost is not the same with this one
		rctx, cancel := context.WithTimeout(ctx, 2*s.opts.RedisTimeout+s.stepTimeout()) // somebody may be at it
		err := s.heedRules(rctx)
		cancel()
		if err != nil {
			return 0, err
		}
	}
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout) // the sweep must not wait for a server that hangs
	defer cancel()
	changed := s.changing(rctx, s.rulesKey(), s.clockKey())
	e, err := s.tick(rctx)
	if err == nil {
		args := []any{uint64(e), pattern}
		if len(floor) > 0 {
			args = append(append(args, s.floorArgs(floor)...), maxFloors)
		}
		var reply []any
		if reply, err = ruleScript.Run(rctx, s.rdb, []string{s.rulesKey()}, args...).Slice(); err == nil && !s.rules.Load().unsure() {
			if err := s.noteRules(rctx, e, reply); err != nil {
				s.in.failed(ctx, "memory", err)
			}
		}
	}
	s.ruling.fence.Add(1) // until the rules are read again, nothing that is kept in the process is used
	err = changed(err)
	if err == nil {
		err = s.heedRules(ctx)
	}
	s.forgetMatching(pattern)
	return e, err
}

// unbar takes a rule away whose sweep is done.
func (s *Store) unbar(ctx context.Context, e epoch) error {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	changed := s.changing(ctx, s.rulesKey())
	err := s.rdb.HDel(ctx, s.rulesKey(), strconv.FormatUint(uint64(e), 10)).Err()
	s.ruling.fence.Add(1)
	if err = changed(err); err != nil {
		return err
	}
	return s.heedRules(ctx)
}

// forgetMatching drops what is kept in the process of what a pattern names, and the loads under way.
func (s *Store) forgetMatching(pattern string) {
	for _, v := range s.declared() {
		v.dropMatching(pattern)
	}
}

// errUnsure says that the rules that there are hold here, and that others may have been lost.
var errUnsure = errors.New("cache: what is remembered of invalidations that Redis may have lost cannot be read")

// heedRules is followRules for who can do without those that were lost.
func (s *Store) heedRules(ctx context.Context) error {
	if err := s.followRules(ctx); !errors.Is(err, errUnsure) {
		return err
	}
	return nil
}

// followRules reads the rules and applies those that are new here.
func (s *Store) followRules(ctx context.Context) error {
	select {
	case s.ruling.reading <- struct{}{}:
		defer func() { <-s.ruling.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	before := s.rules.Load()
	was, first, forgotten := before, memory{}, error(nil)
	if before.unsure() { // before the rules, which others may add to at any time
		was = nil
		first, forgotten = s.remember(ctx)
	}
	next, err := s.readRules(ctx)
	if err != nil {
		return err
	}
	if forgotten != nil {
		next.cover, next.fence = nil, 0 // so they are never current
		s.rules.Store(next)
		s.enact(before, next)
		return fmt.Errorf("%w: %w", errUnsure, forgotten)
	}
	if mended, err := s.mendRules(ctx, was, next, first); err != nil {
		return err
	} else if mended {
		if next, err = s.readRules(ctx); err != nil {
			return err
		}
	}
	// What is read from now on is judged by these rules; what is kept is used again when it was gone through by them. Else
	// what is read in between would be judged by the old ones and kept under the new.
	next.asked = true
	judging := *next
	judging.cover, judging.fence = nil, 0
	s.rules.Store(&judging)
	s.enact(before, next)
	s.rules.Store(next)
	return nil
}

func (s *Store) readRules(ctx context.Context) (*rules, error) {
	next := &rules{fence: s.ruling.fence.Load(), slot: s.coverage.slot(s.rulesKey())}
	next.cover = s.coverage.at(next.slot, s.now())
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	fields, err := s.rdb.HGetAll(ctx, s.rulesKey()).Result()
	if err != nil {
		return nil, err
	}
	for field, value := range fields {
		pattern, isFloor := strings.CutPrefix(field, floorField)
		switch {
		case field == countField:
			next.count, _ = strconv.ParseInt(value, 10, 64)
		case field == sinceField:
			next.since = value
		case isFloor:
			if f, ok := parseFloor(value); ok {
				next.floors = append(next.floors, patternFloor{pattern, f})
			}
		default:
			if n, err := strconv.ParseUint(field, 10, 64); err == nil {
				next.list = append(next.list, rule{epoch(n), value})
				s.clock.learn(epoch(n))
			}
		}
	}
	slices.SortFunc(next.list, func(a, b rule) int { return int(int64(a.epoch) - int64(b.epoch)) })
	return next, nil
}

// enact drops from the process what rules say that are new here. When some came and went unseen, all goes.
func (s *Store) enact(was, next *rules) {
	var news []rule
	var applied []epoch
	for _, r := range next.list {
		applied = append(applied, r.epoch)
		if !slices.Contains(s.ruling.applied, r.epoch) {
			news = append(news, r)
		}
	}
	s.ruling.applied = applied
	if was == nil || next.count-was.count != int64(len(news)) {
		if was != nil || next.count > 0 {
			s.forgetMatching("*")
		}
		return
	}
	for _, r := range news {
		s.forgetMatching(r.pattern)
	}
}
