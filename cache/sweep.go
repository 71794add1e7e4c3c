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
	"golang.org/x/sync/errgroup"
)

const (
	politeBatch = 25  // SCAN's COUNT of a sweep with pauses: a bigger one holds up who comes meanwhile
	politeParts = 4   // of a pause, one after each batch
	politeFaint = 20  // as many keys of others are passed over in the time of one of ours
	urgentBatch = 500 // of one without
	sweepRounds = 8   // visits to nodes whose slots move, before the report says incomplete
	// sweepAhead is how many batches of one node a sweep without pauses changes at a time, while the next is named.
	sweepAhead = 2
	// turnsOf is how many nodes share a turn of a sweep with pauses: all that pause alike would be busy at the same moments.
	turnsOf = 3
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

// change changes keys, which a node has named, and says how many it changed and how many were no entries. Each of its steps
// has the time of Store.stepTimeout.
type change struct {
	atOnce int // how many keys it would like to have, unless the sweep pauses
	do     func(ctx context.Context, node *redis.Client, keys []string) (changed, skipped int64, err error)
	// step, where there is one, has the node name the keys and change them; do is then for those that it refuses.
	step func(ctx context.Context, node *redis.Client, cursor uint64, match string, count int64) (nodeStep, error)
}

// sweep applies do to all keys of pattern, on all masters at once. Keys are named by the node that has them and changed
// there, or through the store's client, which follows slots that move. The error wraps ErrIncomplete when the Report is not
// Complete, and ctx's when that ended it.
func (s *Store) sweep(ctx context.Context, report *Report, pause time.Duration, do change) error {
	began := time.Now()
	defer func() { report.Seconds = time.Since(began).Seconds() }()
	report.Nodes = map[string]NodeReport{}
	before, silent, err := s.layout(ctx)
	report.lacks(silent)
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
		after, silent, err := s.layout(ctx)
		report.lacks(silent)
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

// lacks notes the masters that could not be asked.
func (r *Report) lacks(silent map[string]error) {
	for addr, err := range silent {
		n := r.Nodes[addr]
		n.Error = err.Error()
		r.Nodes[addr] = n
	}
}

// visit sweeps the named nodes at once, each to its end.
func (s *Store) visit(ctx context.Context, report *Report, l layout, addrs []string, pause time.Duration, do change) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	if pause > 0 && do.step != nil {
		do = do.inTurns((len(addrs) + turnsOf - 1) / turnsOf)
	}
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

// sweepNode names the keys of one node and changes them. Without pauses both are done at a time.
func (s *Store) sweepNode(ctx context.Context, node *redis.Client, pattern string, pause time.Duration, do change, mine *NodeReport) error {
	if do.step != nil {
		return s.stepNode(ctx, node, pattern, pause, do, mine)
	}
	if pause > 0 {
		return s.name(ctx, node, pattern, pause, 1, func(keys []string) error {
			mine.Scanned += int64(len(keys))
			return do.apply(ctx, node, keys, mine)
		})
	}
	group, gctx := errgroup.WithContext(ctx)
	batches := make(chan []string)
	var mu sync.Mutex
	group.Go(func() error {
		defer close(batches)
		return s.name(gctx, node, pattern, 0, do.atOnce, func(keys []string) error {
			mu.Lock()
			mine.Scanned += int64(len(keys))
			mu.Unlock()
			select {
			case batches <- keys:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		})
	})
	for range sweepAhead {
		group.Go(func() error {
			for keys := range batches {
				var part NodeReport
				err := do.apply(gctx, node, keys, &part)
				mu.Lock()
				mine.Changed += part.Changed
				mine.Skipped += part.Skipped
				mu.Unlock()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// name hands on the keys of one node that a pattern names, but for the store's own, so many at once or more.
func (s *Store) name(ctx context.Context, node *redis.Client, pattern string, pause time.Duration, atOnce int, got func(keys []string) error) error {
	match, own := s.opts.Prefix+pattern, s.opts.Prefix+metaMark
	var all []string
	count := scanCount(pause)
	var cursor uint64
	var work pace
	for {
		keys, next, err := s.scan(ctx, node, cursor, match, count)
		if err != nil {
			return err
		}
		tired := work.tires(len(keys), int(count))
		keys = slices.DeleteFunc(keys, func(key string) bool {
			return !strings.HasPrefix(key, s.opts.Prefix) || strings.HasPrefix(key, own)
		})
		all = append(all, keys...)
		cursor = next
		if len(all) >= atOnce || cursor == 0 && len(all) > 0 {
			if err := got(all); err != nil {
				return err
			}
			all = nil // it is somebody else's now
		}
		if cursor == 0 {
			return ctx.Err()
		}
		if tired {
			if err := sleep(ctx, pause/politeParts); err != nil {
				return err
			}
		}
	}
}

// scanCount is SCAN's COUNT of a sweep that pauses, or does not.
func scanCount(pause time.Duration) int64 {
	if pause > 0 {
		return politeBatch
	}
	return urgentBatch
}

// pace is what a sweep has done since it last paused, in keys of others.
type pace int

// tires adds a step that came by some keys, and reports whether it is time for a part of the pause.
func (p *pace) tires(named, scanned int) bool {
	*p += pace(politeFaint*named + max(0, scanned-named))
	if *p < politeFaint*politeBatch {
		return false
	}
	*p = 0
	return true
}

func (s *Store) scan(ctx context.Context, node *redis.Client, cursor uint64, match string, count int64) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	return node.Scan(ctx, cursor, match, count).Result()
}

func (c change) apply(ctx context.Context, node *redis.Client, keys []string, mine *NodeReport) error {
	changed, skipped, err := c.do(ctx, node, keys)
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
