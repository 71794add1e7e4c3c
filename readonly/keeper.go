package readonly

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Trip is a cause for which a Keeper enables the mode by itself.
type Trip struct {
	// Name names the cause in reasons and logs.
	Name string
	// Check returns why nothing should be written, or nil. Its context ends after KeeperOptions.Timeout, which by itself is
	// no cause: that context's own error counts as nil, unless it is wrapped in one that says more. dbsplit.DB.Writable is one.
	Check func(ctx context.Context) error
	// After is how long the cause has to last before it trips. Zero means 3 s.
	After time.Duration
}

// KeeperOptions configure a Keeper.
type KeeperOptions struct {
	// Interval is how often the causes are looked at. Zero means 1 s.
	Interval time.Duration
	// Timeout bounds one look. Zero means 1 s.
	Timeout time.Duration
	// Lease is how long the mode outlives the last sight of its cause, or the last Keeper: at least three times Interval
	// and Timeout together. Zero means 15 s.
	Lease time.Duration
	// Respite is how long nothing trips after a person has allowed writes, so that the person has the last word. Zero
	// means 1 min.
	Respite time.Duration
}

// Keeper enables the mode when a cause lasts, keeps it on by a lease for as long as any instance's Keeper sees the cause,
// and lets it end when none does or none is left. What a person has enabled it leaves alone.
type Keeper struct {
	mode    *Switch
	trips   []Trip
	options KeeperOptions
}

// NewKeeper returns a Keeper of mode. Nothing is looked at before Run.
func NewKeeper(mode *Switch, trips []Trip, options *KeeperOptions) (*Keeper, error) {
	var o KeeperOptions
	if options != nil {
		o = *options
	}
	var errs []error
	fill := func(name string, d *time.Duration, zero time.Duration) {
		if *d == 0 {
			*d = zero
		}
		if *d < 0 {
			errs = append(errs, fmt.Errorf("readonly: KeeperOptions.%s is %v, want a positive duration", name, *d))
		}
	}
	fill("Interval", &o.Interval, time.Second)
	fill("Timeout", &o.Timeout, time.Second)
	fill("Lease", &o.Lease, 15*time.Second)
	fill("Respite", &o.Respite, time.Minute)
	if o.Lease < 3*(o.Interval+o.Timeout) {
		errs = append(errs, fmt.Errorf("readonly: KeeperOptions.Lease is %v, want three times Interval and Timeout together or more", o.Lease))
	}
	if mode == nil {
		errs = append(errs, errors.New("readonly: a Keeper needs a Switch"))
	}
	k := &Keeper{mode: mode, options: o}
	for i, trip := range trips {
		if trip.Name == "" || trip.Check == nil || trip.After < 0 {
			errs = append(errs, fmt.Errorf("readonly: trip %d of a Keeper needs a name, Check, and an After that is not negative", i))
		}
		if trip.After == 0 {
			trip.After = 3 * time.Second
		}
		k.trips = append(k.trips, trip)
	}
	return k, errors.Join(errs...)
}

// Run keeps watch until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.options.Interval)
	defer tick.Stop()
	seen := make([]time.Time, len(k.trips)) // since when each cause has lasted
	for {
		cause := k.look(ctx, seen)
		if err := k.act(ctx, cause); err != nil && ctx.Err() == nil {
			k.mode.failed("keeper", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// cause is the first one that lasts. One that does not yet last long enough keeps a lease alive, but trips nothing.
type cause struct {
	text    string
	present bool
	lasting bool
}

func (k *Keeper) look(ctx context.Context, seen []time.Time) cause {
	ctx, cancel := context.WithTimeout(ctx, k.options.Timeout)
	defer cancel()
	errs := make([]error, len(k.trips))
	var group errgroup.Group
	for i, trip := range k.trips {
		group.Go(func() error {
			errs[i] = trip.Check(ctx)
			return nil
		})
	}
	_ = group.Wait()
	var found cause
	for i, err := range errs {
		if err == nil || err == ctx.Err() || errors.Is(err, context.Canceled) {
			seen[i] = time.Time{}
			continue
		}
		if seen[i].IsZero() {
			seen[i] = time.Now()
		}
		if lasting := time.Since(seen[i]) >= k.trips[i].After; lasting && !found.lasting || !found.present {
			found = cause{text: k.trips[i].Name + ": " + clip(err.Error()), present: true, lasting: lasting}
		}
	}
	return found
}

type keeping int

const (
	keepNothing keeping = iota
	keepTrip
	keepRenew
	keepEnd
)

// keep decides what to do about state.
func keep(state State, c cause, now time.Time, o KeeperOptions) keeping {
	switch {
	case state.Enabled && state.Source == Automatic && !state.Incident && state.refuses(now):
		if c.present && state.Lease.Sub(now) < o.Lease/2 {
			return keepRenew
		}
	case state.Enabled && state.Source == Automatic && !state.Incident:
		if c.lasting {
			return keepRenew // late: every Keeper was away
		}
		return keepEnd
	case state.refuses(now), state.Incident, !c.lasting:
	case state.Source == Operator && now.Sub(state.Since) < o.Respite:
	default:
		return keepTrip
	}
	return keepNothing
}

func (k *Keeper) act(ctx context.Context, c cause) error {
	known, ok := k.mode.State()
	if !ok || keep(known, c, time.Now(), k.options) == keepNothing {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.options.Timeout)
	defer cancel()
	state, err := k.mode.current(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	lease := now.Add(k.options.Lease)
	next := state
	switch keep(state, c, now, k.options) {
	case keepNothing:
		return nil
	case keepRenew:
		next.Lease = lease
		if !state.refuses(now) { // whoever has not heard of it writes: what was acknowledged and proven before counts no longer
			next.ID, next.Since = rand.Text(), now
		}
	case keepTrip:
		next = State{ID: rand.Text(), Enabled: true, Tier: Full, Reason: c.text, Actor: k.mode.options.Instance, Source: Automatic, Since: now, Lease: lease}
	case keepEnd:
		next = State{ID: rand.Text(), Reason: "its cause is gone: " + state.Reason, Actor: k.mode.options.Instance, Source: Automatic, Since: now}
	}
	won, err := k.mode.put(ctx, state, next)
	if won {
		k.mode.options.Logger.LogAttrs(ctx, slog.LevelInfo, "read-only lease", slog.Bool("enabled", next.Enabled), slog.Time("lease", next.Lease), slog.String("reason", next.Reason))
	}
	return err
}

// clip keeps a cause short enough to be shown to whoever is refused.
func clip(text string) string {
	if len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "") + "…" // without half a character at its end
	}
	return text
}
