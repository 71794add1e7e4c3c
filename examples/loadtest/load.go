package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Run lets virtual users arrive as the profile says and returns what they saw, when the last has gone.
func Run(ctx context.Context, p Profile, target string) (*Tally, error) {
	tally := NewTally()
	timeout := time.Duration(p.Config.HTTP.Timeout * float64(time.Second))
	first, err := newUser(target, timeout, time.Now(), NewTally())
	if err == nil {
		err = first.run(ctx, Scenario{Flow: p.Before.Flow})
	}
	if err != nil {
		return nil, fmt.Errorf("before the test: %w", err)
	}
	begin := time.Now()
	var users sync.WaitGroup
	defer users.Wait()
	for at := range arrivals(p.Config.Phases) {
		arrival := begin.Add(at)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Until(arrival)):
		}
		users.Go(func() {
			tally.Count("vusers.created", 1)
			u, err := newUser(target, timeout, arrival, tally)
			if err == nil {
				err = u.run(ctx, p.draw())
			}
			if err != nil {
				tally.Fail(err)
				tally.Count("vusers.failed", 1)
				return
			}
			tally.Count("vusers.completed", 1)
		})
	}
	users.Wait()
	return tally, ctx.Err()
}

// draw chooses a scenario by weight.
func (p Profile) draw() Scenario {
	total := 0
	for _, s := range p.Scenarios {
		total += s.Weight
	}
	n := rand.IntN(total)
	for _, s := range p.Scenarios {
		if n -= s.Weight; n < 0 {
			return s
		}
	}
	panic("unreachable: the weights sum up to the total")
}
