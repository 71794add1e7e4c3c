package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// extensionLife ends an extension for new entries when nobody takes it back.
	extensionLife = 24 * time.Hour
	// restoreGrace is what RestoreTTLs leaves to entries that are past their own end.
	restoreGrace = 10 * time.Second
	maxFactor    = 100
	maxBy        = 7 * 24 * time.Hour
)

// Extension lengthens the life of entries while the origin is in trouble: an entry with a lifetime of L ends Factor*L + By
// after it was stored. Asking twice does nothing more.
type Extension struct {
	// Factor multiplies each entry's lifetime, 1 to 100. Zero means 2, or 1 when By is set.
	Factor float64 `json:"factor"`
	// By is added to it, up to a week. Zero means nothing.
	By time.Duration `json:"by"`
	// Pattern says which entries, in view:key form. Zero means "*".
	Pattern string `json:"pattern"`
	// Pause is waited for each hundred entries, or two thousand keys of others, in parts between steps of 25, to go easy on
	// Redis. Zero means none.
	Pause time.Duration `json:"-"`
	// DryRun counts and changes nothing. Zero means do it.
	DryRun bool `json:"-"`
}

func (x Extension) withDefaults() Extension {
	if x.Pattern == "" {
		x.Pattern = "*"
	}
	if x.Factor == 0 {
		x.Factor = 2
		if x.By != 0 {
			x.Factor = 1
		}
	}
	return x
}

func (x Extension) validate(prefix string) error {
	errs := []error{checkPattern(x.Pattern, prefix)}
	if !(x.Factor >= 1 && x.Factor <= maxFactor) { // also NaN
		errs = append(errs, fmt.Errorf("%w: factor is %v, give 1 to %d: a TTL is never shortened", ErrExtension, x.Factor, maxFactor))
	}
	if x.By < 0 || x.By > maxBy {
		errs = append(errs, fmt.Errorf("%w: by is %v, give a duration from 0 to %v", ErrExtension, x.By, maxBy))
	}
	if x.Factor == 1 && x.By == 0 {
		errs = append(errs, fmt.Errorf("%w: factor 1 and by 0 extend nothing, give one of them", ErrExtension))
	}
	return errors.Join(errs...)
}

// stretch returns the extended lifetime.
func (x Extension) stretch(own time.Duration) time.Duration {
	return time.Duration(math.Min(x.Factor*float64(own), math.MaxInt64/2)) + x.By
}

// extending is what is known of the extension in force. None is no nil, but where nothing is known yet, so that one state is
// told from another.
type extending struct{ extension *Extension }

func (e *extending) of() *Extension {
	if e == nil {
		return nil
	}
	return e.extension
}

// extensionOf returns the extension in force for an entry, or nil.
func (s *Store) extensionOf(view, id string) *Extension {
	if x := s.extension.Load().of(); x != nil && globMatch(x.Pattern, view+":"+id) {
		return x
	}
	return nil
}

// ExtendTTLs lengthens the TTLs of entries on all masters, and of those stored from now on, until RestoreTTLs, for a day
// at most; running stores of other processes follow within a second. A new extension takes the place of the last one for
// new entries. What processes keep by themselves stays, and for as long. TTLs are never shortened, keys without TTL get
// none, keys that are not entries are left alone. Without Redis it is for what is kept from now on. An error wraps
// ErrPattern or ErrExtension, with nothing done, or ErrIncomplete.
func (s *Store) ExtendTTLs(ctx context.Context, x Extension) (Report, error) {
	x = x.withDefaults()
	report := Report{Pattern: x.Pattern, DryRun: x.DryRun}
	if err := x.validate(s.opts.Prefix); err != nil {
		return report, err
	}
	if s.rdb == nil {
		if !x.DryRun {
			made := &extending{&x}
			s.extension.Store(made)
			time.AfterFunc(extensionLife, func() { s.extension.CompareAndSwap(made, nil) })
		}
		report.Complete = true
		return report, nil
	}
	if !x.DryRun {
		if err := s.announce(ctx, x); err != nil {
			return report, err
		}
		defer s.moveTTLs(ctx)()
	}
	err := s.sweep(ctx, &report, x.Pause, s.scripted(ctx, extendScript, x.Factor-1, x.By.Milliseconds(), flag(x.DryRun)))
	s.opts.Logger.InfoContext(ctx, "cache: extended TTLs", "pattern", x.Pattern, "factor", x.Factor, "by", x.By,
		"dry_run", x.DryRun, "extended", report.Changed, "complete", report.Complete)
	return report, err
}

// RestoreTTLs takes extensions back: new entries get their own TTL again and the others end when they would have ended;
// those already past that end within ten seconds. Entries that other processes store within a second of the call may
// keep the extended TTL. Where a server refuses CLIENT TRACKING, processes drop what they keep within a second after it.
func (s *Store) RestoreTTLs(ctx context.Context) (Report, error) {
	return s.RestoreTTLsWith(ctx, Restoration{})
}

// Restoration says how to take extensions back.
type Restoration struct {
	// Pause is waited for each hundred entries, as that of Extension. Zero means none.
	Pause time.Duration
	// DryRun counts and changes nothing. Zero means do it.
	DryRun bool
}

// RestoreTTLsWith is RestoreTTLs with pauses and dry run.
func (s *Store) RestoreTTLsWith(ctx context.Context, r Restoration) (Report, error) {
	dryRun, report := r.DryRun, Report{Pattern: "*", DryRun: r.DryRun}
	if s.rdb == nil {
		if !dryRun {
			s.extension.Store(nil)
		}
		report.Complete = true
		return report, nil
	}
	if !dryRun {
		rctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
		defer cancel()
		if err := s.rdb.Unlink(rctx, s.extensionKey()).Err(); err != nil {
			return report, fmt.Errorf("%w: the extension could not be taken back, call again: %w", ErrIncomplete, err)
		}
		s.extension.Store(&extending{})
		defer s.moveTTLs(ctx)()
	}
	err := s.sweep(ctx, &report, r.Pause, s.scripted(ctx, restoreScript, restoreGrace.Milliseconds(), flag(dryRun)))
	if !dryRun {
		if untold := s.changedUnsaid(ctx); untold != nil {
			report.Complete = false
			err = errors.Join(err, fmt.Errorf("%w: other processes were not told of the TTLs, call again: %w", ErrIncomplete, untold))
		}
	}
	s.opts.Logger.InfoContext(ctx, "cache: restored TTLs", "dry_run", dryRun, "restored", report.Changed, "complete", report.Complete)
	return report, err
}

func (s *Store) extensionKey() string { return s.opts.Prefix + metaMark + "ttl" }

// announce makes new entries of all processes follow the extension.
func (s *Store) announce(ctx context.Context, x Extension) error {
	text, err := json.Marshal(x)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	defer cancel()
	if err := s.rdb.Set(ctx, s.extensionKey(), text, extensionLife).Err(); err != nil {
		return fmt.Errorf("%w, nothing was done: %w", ErrIncomplete, err)
	}
	s.extension.Store(&extending{&x})
	return nil
}

// follow learns of extensions that other processes made or took back.
func (s *Store) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	for {
		was := s.extension.Load()
		x, err := s.readExtension(ctx)
		if err != nil {
			return err
		}
		if s.extension.CompareAndSwap(was, &extending{x}) { // else it was made or taken back here meanwhile
			return nil
		}
	}
}

// readExtension returns nil for none.
func (s *Store) readExtension(ctx context.Context) (*Extension, error) {
	text, err := s.rdb.Get(ctx, s.extensionKey()).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var x Extension
	if err := json.Unmarshal(text, &x); err != nil {
		return nil, fmt.Errorf("cache: TTL extension of another version, ignored: %w", err)
	}
	return &x, x.validate(s.opts.Prefix)
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}
