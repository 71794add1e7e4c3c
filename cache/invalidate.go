package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// metaMark begins the store's own keys after the prefix. No view name does.
const metaMark = "~"

// Invalidate removes all entries whose view:key matches a pattern, on all masters: "*", "lead:*", "lead:4?". Stars,
// question marks, classes and backslashes are as in Redis's MATCH. When it returned nil, nothing that was loaded before
// the call began is in Redis, nor will be: loads that were running find their lease gone. Callers in this process that
// come after it share no load from before it. When the caller's context carries what it wrote, nothing that is known to be
// older is stored for a minute, nor served, whichever replica it was read from, and nothing of unknown age for as long as a load
// may last, by stores that run and can reach the master that has the rules; a position that could not be learned asks for
// nothing. Where other stores load, too, Delete or InvalidateTags asks that of all. What deletes by such callers ask for stays.
// An error wraps ErrPattern, with nothing done, or ErrIncomplete, with the Report saying what is left: stores that run do not
// serve it, and one of them goes on with the work. When Redis did not take in the rule by which they know, what is left may be
// served until this store, if it runs, has made good for it, or until its TTL ends. It is ErrIncomplete, too, when all was
// removed and Redis did not take in what the caller wrote.
func (s *Store) Invalidate(ctx context.Context, pattern string) (Report, error) {
	return s.InvalidateWith(ctx, Invalidation{Pattern: pattern})
}

// Invalidation says what to invalidate and how.
type Invalidation struct {
	// Pattern says which entries, in view:key form, "*" for all.
	Pattern string
	// Pause is waited for each hundred entries, as that of Extension, while the memory is given back: the invalidation itself
	// holds at once, and what is not swept yet is not served. After ten seconds another process that runs may help,
	// which pauses for 5 ms. Zero means none.
	Pause time.Duration
	// DryRun counts and changes nothing. Zero means do it.
	DryRun bool
}

// ruleAhead is how long before its sweep a rule holds, so that other processes need not read it from servers that are busy
// with the sweep.
const ruleAhead = 20 * time.Millisecond

// InvalidateWith is Invalidate with pauses and dry run. One that was cut short is called again: its sweep begins anew, and
// passes over what is gone already.
func (s *Store) InvalidateWith(ctx context.Context, inv Invalidation) (Report, error) {
	pattern := inv.Pattern
	report := Report{Pattern: pattern, DryRun: inv.DryRun}
	if err := checkPattern(pattern, s.opts.Prefix); err != nil {
		return report, err
	}
	if s.rdb == nil {
		for _, v := range s.declared() {
			report.Changed += int64(v.matching(pattern))
		}
		if !inv.DryRun {
			s.forgetMatching(pattern)
		}
		report.Complete = true
		return report, nil
	}
	if inv.DryRun {
		err := s.sweep(ctx, &report, inv.Pause, s.counting())
		return report, err
	}
	asked := debt{floor: written(ctx)} // for as long as the database takes
	barred, err := s.invalidate(ctx, &report, inv.Pause, &asked)
	if err != nil && !barred {
		s.debts.owePattern(pattern, asked.floor, asked.swept)
	}
	s.opts.Logger.InfoContext(ctx, "cache: invalidated", "pattern", pattern, "removed", report.Changed, "complete", report.Complete)
	return report, err
}

// invalidate invalidates what the report's pattern names as somebody has asked for, which settles what is owed of it. When it
// fails, barred says that a rule stands, by which stores that run go on, and asked how far it came without.
func (s *Store) invalidate(ctx context.Context, report *Report, pause time.Duration, asked *debt) (barred bool, err error) {
	pattern := report.Pattern
	owed := s.debts.owedPattern(pattern)
	floor := asked.floor.Merge(owed.floor)
	rule, refused := s.bar(ctx, pattern, floor)
	asked.rule = rule
	sweeping := s.unlinking()
	if refused == nil {
		_ = sleep(ctx, ruleAhead)
	} else {
		s.in.failed(ctx, "bar", refused)
		if asked.swept {
			return false, refused
		}
		sweeping = s.telling(sweeping)
	}
	err = s.sweep(ctx, report, pause, sweeping)
	s.forgetMatching(pattern)
	asked.swept = err == nil
	done := refused == nil || err == nil && len(floor) == 0
	if done || err == nil {
		s.debts.settlePattern(pattern, owed, done)
	}
	switch {
	case err == nil && refused != nil && len(asked.floor) > 0: // a sweep holds no later load back
		report.Complete = false
		err = fmt.Errorf("%w: what is loaded from now on may be older than what the caller wrote: %w", ErrIncomplete, refused)
	case err == nil && refused == nil:
		if err := s.unbar(ctx, rule); err != nil {
			s.in.failed(ctx, "bar", err) // the rule stays till the next sweep
		}
	}
	return refused == nil, err
}

const (
	// unlinkKeys is how many keys are looked through for those of one slot: some ten of each, on three masters.
	unlinkKeys = 50_000
	// unlinkCommands is how many commands go in one pipeline.
	unlinkCommands = 500
)

// unlinking removes keys, but for leases that say what loads must have seen. Those of one slot and one view go in one
// command, which is less work for everybody.
func (s *Store) unlinking() change {
	return change{atOnce: unlinkKeys, do: func(ctx context.Context, _ *redis.Client, keys []string) (removed, skipped int64, err error) {
		for groups := range slices.Chunk(s.together(keys), unlinkCommands) {
			n, err := s.unlink(ctx, groups, s.mayHaveLeases(ctx)) // asked each time, as one may be left at any
			removed += n
			if err != nil {
				return removed, 0, err
			}
		}
		return removed, 0, nil
	}}
}

// telling is a change of keys that no rule bars, so who listens must hear of each.
func (s *Store) telling(c change) change {
	return change{atOnce: c.atOnce, do: func(ctx context.Context, node *redis.Client, keys []string) (changed, skipped int64, err error) {
		told := s.changing(ctx, keys...)
		changed, skipped, err = c.do(ctx, node, keys)
		return changed, skipped, told(err)
	}}
}

// unlink removes keys. It spares leases with a floor if asked to, which takes about twice as long.
func (s *Store) unlink(ctx context.Context, groups []together, spare bool) (removed int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	var first, then removal
	if spare {
		first = func(c redis.Cmdable, keys []string) func() (int64, error) {
			return spareScript.EvalSha(ctx, c, keys, s.spareArgs()...).Int64
		}
		then = func(c redis.Cmdable, keys []string) func() (int64, error) {
			return spareScript.Eval(ctx, c, keys, s.spareArgs()...).Int64
		}
	} else {
		first = func(c redis.Cmdable, keys []string) func() (int64, error) { return c.Unlink(ctx, keys...).Result }
		then = first
	}
	var errs []error
	var left []together
	removed = s.unlinkAll(ctx, groups, first, func(g together, err error) {
		switch {
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			left = append(left, g)
		case redirected(err) || answered(err) && len(g.keys) > 1: // half of the slot may have moved
			for i := range g.keys {
				left = append(left, together{g.view, g.slot, g.keys[i : i+1]})
			}
		default:
			errs = append(errs, err)
		}
	})
	var alone int64
	for part := range slices.Chunk(left, unlinkCommands) {
		removed += s.unlinkAll(ctx, part, then, func(g together, err error) {
			if !redirected(err) && (len(g.keys) == 1 || !answered(err)) {
				errs = append(errs, err)
				return
			}
			for _, key := range g.keys {
				n, err := then(s.rdb, []string{key})()
				if err != nil {
					errs = append(errs, err)
				}
				alone += n
				s.in.invalidated.WithLabelValues(g.view).Add(float64(n))
			}
		})
	}
	return removed + alone, firstOf(errs)
}

// removal is a command that removes keys of one slot, and returns what says, when it was sent, how many it has removed.
type removal func(c redis.Cmdable, keys []string) func() (int64, error)

// unlinkAll sends a command for each group, in one pipeline, and says which have failed.
func (s *Store) unlinkAll(ctx context.Context, groups []together, unlink removal, failed func(together, error)) (removed int64) {
	if len(groups) == 0 {
		return 0
	}
	pipe := s.rdb.Pipeline()
	ends := make([]func() (int64, error), len(groups))
	for i, g := range groups {
		ends[i] = unlink(pipe, g.keys)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, end := range ends {
		n, err := end()
		if err != nil {
			failed(groups[i], err)
			continue
		}
		removed += n
		s.in.invalidated.WithLabelValues(groups[i].view).Add(float64(n))
	}
	return removed
}

func (s *Store) spareArgs() []any {
	generation := binary.BigEndian.AppendUint64(nil, rand.Uint64())
	ageless, aged := s.floorTimes()
	return []any{generation, ageless, aged}
}

// redirected says that a slot moved more often than a pipeline follows.
func redirected(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")
}

// together are keys of one slot and one view.
type together struct {
	view string
	slot uint16
	keys []string
}

func (s *Store) together(keys []string) []together {
	type mark struct {
		view string
		slot uint16
	}
	at := make(map[mark]int, len(keys))
	groups := make([]together, 0, len(keys))
	for _, key := range keys {
		m := mark{s.viewOf(key), s.coverage.slot(key)}
		i, known := at[m]
		if !known || len(groups[i].keys) >= unlinkCommands {
			i = len(groups)
			at[m] = i
			groups = append(groups, together{view: m.view, slot: m.slot})
		}
		groups[i].keys = append(groups[i].keys, key)
	}
	return groups
}

func (s *Store) counting() change {
	return change{atOnce: 1, do: func(_ context.Context, _ *redis.Client, keys []string) (int64, int64, error) {
		return int64(len(keys)), 0, nil
	}}
}

// viewOf names the view that a key belongs to, or "other": what lies under the prefix is no label.
func (s *Store) viewOf(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, s.opts.Prefix), ":")
	if _, ok := (*s.byName.Load())[name]; ok {
		return name
	}
	return "other"
}

// firstOf stands for the errors of hundreds of commands that failed alike. Those that did not have nil.
func firstOf(errs []error) (first error) {
	for _, err := range errs {
		switch {
		case err == nil:
		case first == nil:
			first = err
		default:
			return errors.Join(first, errors.New("and others"))
		}
	}
	return first
}
