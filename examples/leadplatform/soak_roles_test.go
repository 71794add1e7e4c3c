package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
)

func (s *soak) roleFaults() []fault {
	return []fault{
		{name: "replica promoted", class: "roles", least: 0, most: 3 * second, begin: s.promote},
		{name: "two primaries", class: "roles", least: 2 * second, most: 8 * second, begin: s.split},
	}
}

// promote stops the primary, which sends its replicas everything first, and promotes one of them. The other one stays behind on
// the old timeline until the fault is healed; then both follow. Nothing is lost, so nothing that was acknowledged may be missing.
func (s *soak) promote(dice *rand.Rand) (string, func() error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all, old := s.pg.Servers(), s.primary()
	followers := s.replicas()
	first := dice.IntN(2)
	heir, other := followers[first], followers[1-first]
	if err := old.Stop(ctx); err != nil {
		return "", nil, err
	}
	if err := all[heir].Promote(ctx); err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	s.leader = heir
	s.mu.Unlock()
	return fmt.Sprintf("%s after %s", all[heir].Name(), old.Name()), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := all[other].Follow(ctx, all[heir]); err != nil {
			return err
		}
		return old.Rejoin(ctx, all[heir])
	}, nil
}

// besideTheNew is how long the old primary, which answers again, stands beside the new one.
const besideTheNew = 3 * time.Second

// split cuts the primary off from everybody, promotes a replica that has all of it, and lets the old primary, which never
// stopped, come back. What is written there is thrown away in the end: it may be nothing that was acknowledged.
func (s *soak) split(dice *rand.Rand) (string, func() error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all, followers := s.pg.Servers(), s.replicas()
	s.mu.Lock()
	old := s.leader
	s.mu.Unlock()
	first := dice.IntN(2)
	heir, other := followers[first], followers[1-first]
	s.proxies[old].Blackhole(faultconn.Both)
	s.rest(300 * time.Millisecond) // what was sent before is worked off
	if err := errors.Join(all[heir].WaitCaughtUp(ctx), all[heir].Promote(ctx)); err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	s.leader = heir
	s.mu.Unlock()
	return fmt.Sprintf("%s beside %s", all[heir].Name(), all[old].Name()), func() error {
		s.proxies[old].Heal()
		s.rest(besideTheNew)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, n := range []int{old, other} {
			all[n].Kill()
			if err := all[n].Rebuild(ctx, all[heir]); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
