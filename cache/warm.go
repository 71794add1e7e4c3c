package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// WarmSet is a set of keys of a view that are worth loading before anybody asks.
type WarmSet[V any] struct {
	// Name identifies the set, by the rules of view names.
	Name string
	// Keys returns the keys, anew for each warming.
	Keys func(ctx context.Context) ([]string, error)
	// Load gets the value of one of them, as in View.Load. Give it or LoadMany.
	Load Loader[V]
	// LoadMany gets the values of up to 500 of them at once, as in View.LoadMany.
	LoadMany ManyLoader[V]
	// Priority orders sets: higher ones are warmed first. Zero means last but for negative ones.
	Priority int
	// Concurrency is how many loads run at a time; Options.MaxLoads holds besides. Zero means 8, with LoadMany 2.
	Concurrency int
}

// warmSet is a WarmSet whose type is forgotten.
type warmSet struct {
	name     string
	priority int
	run      func(ctx context.Context, dryRun bool, progress func(update func(*WarmSetReport)))
}

// Warming says what to warm and how.
type Warming struct {
	// Sets names the sets. Zero means all.
	Sets []string
	// Progress is called with the state so far, after some keys at a time, one call at a time. Zero means never.
	Progress func(WarmReport)
	// DryRun counts and loads nothing. Zero means do it.
	DryRun bool
}

// WarmReport says what a warming did.
type WarmReport struct {
	// DryRun says that nothing was loaded; Loaded counts what would have been.
	DryRun bool `json:"dry_run"`
	// Complete says that no key of any set failed.
	Complete bool `json:"complete"`
	// Sets is in the order of work.
	Sets []WarmSetReport `json:"sets"`
}

// WarmSetReport is one set's part of a WarmReport.
type WarmSetReport struct {
	// Name is the set's.
	Name string `json:"name"`
	// Keys is how many keys the set has.
	Keys int `json:"keys"`
	// Current is how many were in the cache already.
	Current int `json:"current"`
	// Loaded is how many were brought from the origin.
	Loaded int `json:"loaded"`
	// NotFound is how many the origin does not have.
	NotFound int `json:"not_found"`
	// Failed is how many could not be looked up or loaded.
	Failed int `json:"failed"`
	// Error is the first failure.
	Error string `json:"error,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
}

// DeclareWarm adds a set to what Store.Warm warms. A mistake is returned, and again by Store.Ready.
func (v *View[V]) DeclareWarm(set WarmSet[V]) error {
	var errs []error
	if v.err != nil {
		errs = append(errs, v.err)
	}
	if !viewName.MatchString(set.Name) {
		errs = append(errs, fmt.Errorf("cache: WarmSet.Name %q, give 1 to 64 letters, digits, dots, dashes or underscores", clip(set.Name)))
	}
	if set.Keys == nil || (set.Load == nil) == (set.LoadMany == nil) {
		errs = append(errs, fmt.Errorf("cache: WarmSet %q needs Keys, and either Load or LoadMany", clip(set.Name)))
	}
	if set.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("cache: WarmSet %q has a negative Concurrency, leave it zero for 8, or 2 with LoadMany", clip(set.Name)))
	}
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sets[set.Name] != nil {
		errs = append(errs, fmt.Errorf("cache: WarmSet %q is declared twice, give this one another name", clip(set.Name)))
	}
	if err := errors.Join(errs...); err != nil {
		s.broken = append(s.broken, err)
		return err
	}
	s.sets[set.Name] = &warmSet{name: set.Name, priority: set.Priority, run: func(ctx context.Context, dryRun bool, progress func(func(*WarmSetReport))) {
		v.warm(ctx, set, dryRun, progress)
	}}
	return nil
}

// Warm loads what is not in the cache of the named sets, or of all. Entries that are there are left alone, so a warming
// that was cut short goes on where it was. The error is of unknown names, before anything is done, or joins what failed;
// the report is right beside it.
func (s *Store) Warm(ctx context.Context, names ...string) (WarmReport, error) {
	return s.WarmWith(ctx, Warming{Sets: names})
}

// WarmWith is Warm with progress and dry run.
func (s *Store) WarmWith(ctx context.Context, w Warming) (WarmReport, error) {
	sets, err := s.warmSets(w.Sets)
	report := WarmReport{DryRun: w.DryRun}
	if err != nil {
		return report, err
	}
	var errs []error
	for _, set := range sets {
		if err := ctx.Err(); err != nil {
			errs = append(errs, fmt.Errorf("cache: warming ended before set %s: %w", set.name, err))
			break
		}
		began := time.Now()
		report.Sets = append(report.Sets, WarmSetReport{Name: set.name})
		var mu sync.Mutex
		set.run(ctx, w.DryRun, func(update func(*WarmSetReport)) {
			mu.Lock()
			defer mu.Unlock()
			mine := &report.Sets[len(report.Sets)-1]
			update(mine)
			mine.Seconds = time.Since(began).Seconds()
			if w.Progress != nil {
				w.Progress(WarmReport{DryRun: w.DryRun, Sets: slices.Clone(report.Sets)})
			}
		})
		if mine := report.Sets[len(report.Sets)-1]; mine.Error != "" {
			errs = append(errs, fmt.Errorf("cache: warm set %s: %d of %d keys failed, warm again: %s", set.name, mine.Failed, mine.Keys, mine.Error))
		}
	}
	report.Complete = len(errs) == 0
	s.opts.Logger.InfoContext(ctx, "cache: warmed", "sets", len(report.Sets), "dry_run", w.DryRun, "complete", report.Complete)
	return report, errors.Join(errs...)
}

func (s *Store) warmSets(names []string) ([]*warmSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sets []*warmSet
	if len(names) == 0 {
		for _, set := range s.sets {
			sets = append(sets, set)
		}
	}
	for _, name := range names {
		set := s.sets[name]
		if set == nil {
			return nil, fmt.Errorf("%w: %q, declare it with View.DeclareWarm", ErrUnknownSet, clip(name))
		}
		if !slices.Contains(sets, set) {
			sets = append(sets, set)
		}
	}
	slices.SortFunc(sets, func(a, b *warmSet) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), strings.Compare(a.name, b.name))
	})
	return sets, nil
}

// warm works through one set.
func (v *View[V]) warm(ctx context.Context, set WarmSet[V], dryRun bool, progress func(func(*WarmSetReport))) {
	ids, err := set.Keys(ctx)
	if err != nil {
		progress(func(r *WarmSetReport) { r.Error = "keys: " + err.Error() })
		return
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	progress(func(r *WarmSetReport) { r.Keys = len(ids) })
	add := func(tally WarmSetReport) { progress(func(r *WarmSetReport) { r.sum(tally) }) }
	load, atATime := v.warmLoad(set)
	var batches errgroup.Group
	batches.SetLimit(atATime)
	for batch := range slices.Chunk(ids, warmLookups) {
		if err := ctx.Err(); err != nil {
			add(WarmSetReport{Error: err.Error()})
			break
		}
		batches.Go(func() error {
			missing, failed := v.missingOf(ctx, batch)
			tally := WarmSetReport{Current: len(batch) - len(missing) - len(failed), Failed: len(failed)}
			for _, err := range failed {
				tally.Error = err.Error()
				break
			}
			if dryRun {
				tally.Loaded = len(missing)
			}
			add(tally)
			if !dryRun && len(missing) > 0 {
				load(ctx, missing, add)
			}
			return nil
		})
	}
	_ = batches.Wait()
}

// sum adds what was done.
func (r *WarmSetReport) sum(more WarmSetReport) {
	r.Current += more.Current
	r.Loaded += more.Loaded
	r.NotFound += more.NotFound
	r.Failed += more.Failed
	r.Error = cmp.Or(r.Error, more.Error)
}

// add counts one key.
func (r *WarmSetReport) add(err error) {
	switch {
	case err == nil:
		r.Loaded++
	case errors.Is(err, ErrNotFound):
		r.NotFound++
	default:
		r.Failed++
		r.Error = cmp.Or(r.Error, err.Error())
	}
}
