package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	sweepBatch  = 500 // SCAN's COUNT: a bigger one blocks the node for milliseconds
	sweepRounds = 8   // visits to nodes whose slots move, before the report says incomplete
)

// Report says what a sweep over all masters did.
type Report struct {
	// Pattern is the pattern swept, in view:key form.
	Pattern string `json:"pattern"`
	// DryRun says that nothing was changed; Changed counts what would have been.
	DryRun bool `json:"dry_run"`
	// Complete says that every key that was there from beginning to end was seen.
	Complete bool `json:"complete"`
	// Scanned counts the keys that the pattern named; one that Redis named twice counts twice.
	Scanned int64 `json:"scanned"`
	// Changed counts the keys removed, or whose TTL moved.
	Changed int64 `json:"changed"`
	// Skipped counts keys that are no entries: leases of running loads, and values of other programs under the prefix.
	Skipped int64 `json:"skipped"`
	// Nodes is by the master's address. A key that moved during the sweep counts for the node that named it.
	Nodes map[string]NodeReport `json:"nodes"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
}

// NodeReport is one master's part of a Report.
type NodeReport struct {
	// Scanned counts the keys that the node named.
	Scanned int64 `json:"scanned"`
	// Changed counts those of them removed, or whose TTL moved.
	Changed int64 `json:"changed"`
	// Skipped counts those of them that are no entries.
	Skipped int64 `json:"skipped"`
	// Passes is how often the node was visited; more than once when slots moved.
	Passes int `json:"passes"`
	// Error says why the node is not done, or is empty.
	Error string `json:"error,omitempty"`
}

// change adds the commands for keys to a pipeline and returns, to be called after it ran, how many it changed and how
// many were no entries.
type change func(ctx context.Context, pipe redis.Pipeliner, keys []string) func() (changed, skipped int64, failed error)

// sweep applies do to all keys of pattern, on all masters at once. Keys are named by the node that has them and changed
// through the store's client, which follows slots that move. The error wraps ErrIncomplete when the Report is not
// Complete, and ctx's when that ended it.
func (s *Store) sweep(ctx context.Context, report *Report, pause time.Duration, do change) error {
	began := time.Now()
	defer func() { report.Seconds = time.Since(began).Seconds() }()
	report.Nodes = map[string]NodeReport{}
	before, err := s.layout(ctx)
	if err != nil && len(before) == 0 {
		return fmt.Errorf("%w, nothing was done: %w", ErrIncomplete, err)
	}
	errs := []error{err}
	due := slices.Sorted(maps.Keys(before))
	for round := 0; len(due) > 0; round++ {
		if round == sweepRounds {
			errs = append(errs, errors.New("the cluster's layout keeps changing, call again when it rests"))
			break
		}
		errs = append(errs, s.visit(ctx, report, before, due, pause, do))
		after, err := s.layout(ctx)
		if err != nil {
			errs = append(errs, err)
			break
		}
		due, before = again(before, after, round == 0), after
	}
	for _, n := range report.Nodes {
		report.Scanned += n.Scanned
		report.Changed += n.Changed
		report.Skipped += n.Skipped
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	report.Complete = true
	return nil
}

// visit sweeps the named nodes at once, each to its end.
func (s *Store) visit(ctx context.Context, report *Report, l layout, addrs []string, pause time.Duration, do change) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	sofar := maps.Clone(report.Nodes)
	for _, addr := range addrs {
		mine := sofar[addr]
		wg.Go(func() {
			err := s.sweepNode(ctx, l[addr].node, report.Pattern, pause, do, &mine)
			mine.Passes++
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				mine.Error = err.Error()
				errs = append(errs, fmt.Errorf("node %s: %w", addr, err))
			}
			report.Nodes[addr] = mine
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Store) sweepNode(ctx context.Context, node *redis.Client, pattern string, pause time.Duration, do change, mine *NodeReport) error {
	match, own := s.opts.Prefix+pattern, s.opts.Prefix+metaMark
	var cursor uint64
	for {
		keys, next, err := s.scan(ctx, node, cursor, match)
		if err != nil {
			return err
		}
		keys = slices.DeleteFunc(keys, func(key string) bool {
			return !strings.HasPrefix(key, s.opts.Prefix) || strings.HasPrefix(key, own)
		})
		mine.Scanned += int64(len(keys))
		if len(keys) > 0 {
			if err := s.apply(ctx, keys, do, mine); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return ctx.Err()
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (s *Store) scan(ctx context.Context, node *redis.Client, cursor uint64, match string) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	return node.Scan(ctx, cursor, match, sweepBatch).Result()
}

func (s *Store) apply(ctx context.Context, keys []string, do change, mine *NodeReport) error {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	pipe := s.rdb.Pipeline()
	outcome := do(ctx, pipe, keys)
	if pipe.Len() > 0 {
		_, _ = pipe.Exec(ctx) // each command has its own error
	}
	changed, skipped, err := outcome()
	mine.Changed += changed
	mine.Skipped += skipped
	return err
}

// stepTimeout bounds one step of a sweep, which moves hundreds of keys.
func (s *Store) stepTimeout() time.Duration { return max(s.opts.RedisTimeout, time.Second) }

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
