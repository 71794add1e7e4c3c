package cache

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// metaMark begins the store's own keys after the prefix. No view name does.
const metaMark = "~"

// Invalidate removes all entries whose view:key matches a pattern, on all masters: "*", "lead:*", "lead:4?". Stars,
// question marks, classes and backslashes are as in Redis's MATCH. When it returned nil, nothing that was loaded before
// the call began is in Redis, nor will be: loads that were running find their lease gone. Callers in this process that
// come after it share no load from before it. An error wraps ErrPattern, with nothing done, or ErrIncomplete, with the
// Report saying what is left: stores that run do not serve it, and one of them goes on with the work.
func (s *Store) Invalidate(ctx context.Context, pattern string) (Report, error) {
	return s.invalidate(ctx, pattern, false)
}

func (s *Store) invalidate(ctx context.Context, pattern string, dryRun bool) (Report, error) {
	report := Report{Pattern: pattern, DryRun: dryRun}
	if err := checkPattern(pattern, s.opts.Prefix); err != nil {
		return report, err
	}
	if dryRun {
		return report, s.sweep(ctx, &report, 0, s.count)
	}
	if s.rdb == nil {
		for _, v := range s.declared() {
			entries, _ := v.residents()
			report.Changed += int64(entries)
		}
		s.forgetMatching(pattern)
		report.Complete = true
		return report, nil
	}
	rule, barred := s.bar(ctx, pattern)
	err := s.sweep(ctx, &report, 0, s.unlink)
	switch {
	case barred != nil:
		s.in.failed(ctx, "bar", barred)
		if err != nil {
			s.debts.owePattern(pattern)
		}
	case err == nil:
		if err := s.unbar(ctx, rule); err != nil {
			s.in.failed(ctx, "bar", err) // the rule stays till the next sweep
		}
	}
	s.forgetMatching(pattern)
	s.opts.Logger.InfoContext(ctx, "cache: invalidated", "pattern", pattern, "removed", report.Changed, "complete", report.Complete)
	return report, err
}

func (s *Store) unlink(ctx context.Context, pipe redis.Pipeliner, keys []string) func() (int64, int64, error) {
	commands := make([]*redis.IntCmd, len(keys))
	for i, key := range keys {
		commands[i] = pipe.Unlink(ctx, key)
	}
	return func() (removed, skipped int64, err error) {
		var errs []error
		byView := map[string]int{}
		for i, cmd := range commands {
			if cmd.Err() != nil {
				errs = append(errs, cmd.Err())
				continue
			}
			removed += cmd.Val()
			byView[s.viewOf(keys[i])] += int(cmd.Val())
		}
		for view, n := range byView {
			s.in.invalidated.WithLabelValues(view).Add(float64(n))
		}
		return removed, 0, firstOf(errs)
	}
}

func (s *Store) count(_ context.Context, _ redis.Pipeliner, keys []string) func() (int64, int64, error) {
	return func() (int64, int64, error) { return int64(len(keys)), 0, nil }
}

// viewOf names the view that a key belongs to, or "other": what lies under the prefix is no label.
func (s *Store) viewOf(key string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(key, s.opts.Prefix), ":")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.views[name]; ok {
		return name
	}
	return "other"
}

// firstOf stands for the errors of hundreds of commands that failed alike.
func firstOf(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs[0], errors.New("and others"))
}
