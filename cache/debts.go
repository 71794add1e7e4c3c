package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

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
)

// debts are invalidations that Redis could not be told. Callers got an error; a store that runs makes good for it when
// Redis is back, so that what they changed is not served till its TTL ends. The newest of one key stands for all.
type debts struct {
	mu       sync.Mutex
	keys     map[string][]byte // the lease to leave
	patterns []string
	asked    uint64 // counts what was added to patterns
}

func (d *debts) owe(s *Store, key string, lease []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys == nil {
		d.keys = make(map[string][]byte)
	}
	if _, known := d.keys[key]; !known && len(d.keys) >= maxDebts {
		clear(d.keys)
		d.patterns = []string{"*"}
		d.asked++
		s.opts.Logger.Warn("cache: too many deletes failed to remember each, all entries will be invalidated when Redis is back", "prefix", s.opts.Prefix)
		return
	}
	d.keys[key] = lease
}

func (d *debts) owePattern(pattern string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if !slices.Contains(d.patterns, pattern) && !slices.Contains(d.patterns, "*") {
		d.patterns = append(d.patterns, pattern)
	}
	if len(d.patterns) > maxRules {
		d.patterns = []string{"*"}
	}
}

// payDebts tries once more what Redis could not be told.
func (s *Store) payDebts(ctx context.Context) error {
	s.debts.mu.Lock()
	keys, patterns, asked := maps.Clone(s.debts.keys), slices.Clone(s.debts.patterns), s.debts.asked
	s.debts.mu.Unlock()
	var errs []error
	for batch := range slices.Chunk(slices.Collect(maps.Keys(keys)), debtBatch) {
		errs = append(errs, s.payKeys(ctx, batch, keys))
	}
	for _, pattern := range patterns {
		report := Report{Pattern: pattern}
		if err := s.sweep(ctx, &report, 0, s.unlinking()); err != nil {
			errs = append(errs, err)
			continue
		}
		s.debts.mu.Lock()
		if s.debts.asked == asked { // else it may have been asked for again while the sweep ran
			s.debts.patterns = slices.DeleteFunc(s.debts.patterns, func(p string) bool { return p == pattern })
		}
		s.debts.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (s *Store) payKeys(ctx context.Context, batch []string, leases map[string][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	defer s.changing(ctx, batch...)()
	var errs []error
	ttl := s.leaseTTL().Milliseconds()
	for _, key := range batch {
		if err := deleteScript.Run(ctx, s.rdb, []string{key}, leases[key], ttl).Err(); err != nil {
			errs = append(errs, err)
			continue
		}
		s.debts.mu.Lock()
		if now := s.debts.keys[key]; string(now) == string(leases[key]) {
			delete(s.debts.keys, key)
		}
		s.debts.mu.Unlock()
	}
	return firstOf(errs)
}

// reclaimMemory goes on with sweeps that were cut short, one process at a time.
func (s *Store) reclaimMemory(ctx context.Context) error {
	rules := s.rules.Load()
	if rules == nil || len(rules.list) == 0 {
		return nil
	}
	lease := redisclient.NewLease(s.rdb, s.opts.Prefix+metaMark+"sweeper", reclaimLease)
	mine, err := lease.Hold(ctx)
	if err != nil || !mine {
		return err
	}
	defer lease.Release(context.WithoutCancel(ctx))
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
