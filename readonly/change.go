package readonly

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Change says how to enable the mode.
type Change struct {
	// Tier is whose writes are refused. Zero means Full.
	Tier Tier
	// Tenants are those whose writes are refused. Zero means all.
	Tenants []string
	// Reason is shown to whoever is refused. Zero means none.
	Reason string
	// Until ends the mode by itself. Zero means that somebody must.
	Until time.Time
	// Actor is who asks. Zero means unknown.
	Actor string

	incident bool
}

const (
	maxTenants = 100
	maxTenant  = 128 // bytes
	maxReason  = 1000
)

// validate says everything that is wrong with c on this Switch.
func (s *Switch) validate(c Change) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("readonly: "+format, args...)) }
	switch {
	case c.Tier != "" && c.Tier != Full && c.Tier != Staff:
		bad("there is no tier %q to enable: give staff or full, or disable the mode", c.Tier)
	case c.Tier == Staff && s.options.Staff == nil:
		bad("tier staff needs Options.Staff, which says who that is: give tier full")
	}
	if len(c.Tenants) > 0 && s.options.Tenant == nil {
		bad("tenants need Options.Tenant, which says whose a write is: leave them out")
	}
	if len(c.Tenants) > maxTenants || slices.ContainsFunc(c.Tenants, func(t string) bool { return t == "" || len(t) > maxTenant || !utf8.ValidString(t) }) {
		bad("tenants are at most %d names of 1 to %d bytes of UTF-8", maxTenants, maxTenant)
	}
	if len(c.Reason) > maxReason {
		bad("the reason is longer than %d bytes: shorten it", maxReason)
	}
	if !c.Until.IsZero() && !c.Until.After(time.Now()) {
		bad("until %s has passed, give a time to come or none", c.Until.UTC().Format(time.RFC3339))
	}
	return errors.Join(errs...)
}

func (c Change) state() State {
	tier := c.Tier
	if tier == "" {
		tier = Full
	}
	tenants := slices.Clone(c.Tenants)
	slices.Sort(tenants)
	return State{
		Enabled: true, Tier: tier, Tenants: slices.Compact(tenants), Reason: c.Reason, Actor: c.Actor, Source: Operator,
		Until: c.Until.UTC().Truncate(time.Millisecond), Incident: c.incident,
	}
}

// Enable stops writes everywhere and waits up to Options.AckWait for every living instance to say so, for what it was
// doing to end, and with Options.Witness for the database to be quiet. Enabling what is enabled changes its reason, tier and
// end. The Report tells who or what is awaited; that is not an error, because an instance may have died without telling.
func (s *Switch) Enable(ctx context.Context, c Change) (Report, error) {
	if err := s.validate(c); err != nil {
		return Report{}, err
	}
	return s.change(ctx, c.state())
}

// ErrIncident is that an Incident holds the mode, so that only its End allows writes again.
var ErrIncident = errors.New("readonly: an incident holds read-only mode, end the incident")

// Disable allows writes again. Disabling what is disabled changes nothing. While an Incident holds the mode it is
// ErrIncident. A Keeper that still sees its cause trips again, but not before KeeperOptions.Respite has passed.
func (s *Switch) Disable(ctx context.Context, actor string) (Report, error) {
	return s.change(ctx, State{Actor: actor, Source: Operator})
}

func (s *Switch) change(ctx context.Context, next State) (Report, error) {
	next, err := next.kept()
	if err != nil {
		return Report{}, err
	}
	incident := next.Incident
	select {
	case s.changing <- struct{}{}:
		defer func() { <-s.changing }()
	case <-ctx.Done():
		return Report{}, fmt.Errorf("readonly: nothing was changed, another change of this instance is under way: %w", context.Cause(ctx))
	}
	for {
		mine, err := s.current(ctx)
		if err != nil {
			return Report{}, err
		}
		if !next.Enabled && mine.Incident {
			return Report{}, ErrIncident
		}
		// Repeating the mode under stress must not make an incident forget what it has to undo.
		next.Incident, next.Relief = incident, Relief{}
		if next.Enabled && mine.Incident {
			next.Incident, next.Relief = true, mine.Relief
		}
		if incident && next.Relief.Phase != "beginning" {
			next.Relief = next.Relief.turned("beginning", 0)
			if !next.Relief.claimed() {
				next.Relief.keep(s.options.Instance, s.options.AckWait+headStart) // the steps come after the acknowledgements
			}
		}
		if same(next, mine) && mine.Epoch > 0 {
			return s.await(ctx, mine)
		}
		next.ID = rand.Text()
		next.Since = time.Now().UTC().Truncate(time.Millisecond)
		won, err := s.put(ctx, mine, next)
		if err != nil {
			return Report{}, err
		}
		if won {
			known, _ := s.State()
			return s.await(ctx, known)
		}
	}
}

// same says that asking for next changes nothing: not who asks, and not what is kept beside it.
func same(next, mine State) bool {
	next.Epoch, next.ID, next.Actor, next.Since = mine.Epoch, mine.ID, mine.Actor, mine.Since
	if !next.Enabled && !mine.Enabled {
		return true
	}
	return next.Equal(mine)
}

// current reads what is stored, obeys it, and returns what holds.
func (s *Switch) current(ctx context.Context) (State, error) {
	var stored State
	err := s.introduce(ctx)
	if err == nil {
		stored, err = s.store.Load(ctx)
	}
	if err != nil {
		return State{}, fmt.Errorf("readonly: nothing was changed, the store does not answer: %w", err)
	}
	s.adopt(stored)
	mine, _ := s.State()
	return mine, nil
}

// put stores next as the successor of mine, unless somebody was faster.
func (s *Switch) put(ctx context.Context, mine, next State) (won bool, err error) {
	next.Epoch = mine.Epoch + 1
	if next, err = next.kept(); err != nil {
		return false, err
	}
	stored, err := s.store.Save(ctx, next)
	if err != nil {
		return false, fmt.Errorf("readonly: whether the change was stored is unknown, read the mode and repeat: %w", err)
	}
	s.adopt(stored)
	return stored.Equal(next), nil
}
