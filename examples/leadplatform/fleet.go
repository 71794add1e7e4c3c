package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// Fleet is the processes of the platform: a fixed number of API instances and as many workers as the autoscaler wants.
type Fleet struct {
	// Changed is called whenever a process comes or goes. Set it before Run.
	Changed func()

	config   lead.Config
	programs programs
	log      *slog.Logger

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // Run's, for workers that SetWorkers adds.
	group   sync.WaitGroup
	apis    []*Child
	workers []*Child
	stops   []context.CancelFunc // one a worker
	serial  int
}

// NewFleet returns a fleet whose processes get c as their environment.
func NewFleet(c lead.Config, p programs, log *slog.Logger) *Fleet {
	// The balancer gives a refused connection to another instance, so there is nobody to wait for.
	c.DrainDelay, c.DrainTimeout = 0, 5*time.Second
	return &Fleet{config: c, programs: p, log: log, Changed: func() {}}
}

// Run starts the processes, and stops them when ctx ends: all at once, each after it has drained.
func (f *Fleet) Run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	for n := range apiInstances {
		child := f.child(fmt.Sprintf("api-%d", n+1), f.programs.api)
		f.apis = append(f.apis, child)
		f.start(ctx, child)
	}
	f.mu.Unlock()
	if err := f.SetWorkers(fewWorkers); err != nil {
		return err
	}
	<-ctx.Done()
	f.group.Wait()
	return nil
}

// SetWorkers makes n workers run, the autoscaler's hook.
func (f *Fleet) SetWorkers(n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil || f.ctx.Err() != nil {
		return errors.New("the fleet does not run")
	}
	for len(f.workers) < n {
		f.serial++
		child := f.child(fmt.Sprintf("worker-%d", f.serial), f.programs.worker)
		ctx, stop := context.WithCancel(f.ctx)
		f.workers, f.stops = append(f.workers, child), append(f.stops, stop)
		f.start(ctx, child)
	}
	for len(f.workers) > n {
		last := len(f.workers) - 1
		f.stops[last]()
		f.workers, f.stops = f.workers[:last], f.stops[:last]
	}
	return nil
}

func (f *Fleet) child(name, program string) *Child {
	// This process scales the workers.
	return &Child{Name: name, program: program, log: f.log, env: append(f.config.Environment(), "INSTANCE="+name, "AUTOSCALE=off")}
}

func (f *Fleet) start(ctx context.Context, child *Child) {
	f.group.Go(func() {
		if err := child.Run(ctx, func() { f.Changed() }); err != nil {
			f.log.Error("process", "name", child.Name, "error", err)
		}
	})
}

// Children returns the processes that should run.
func (f *Fleet) Children() []*Child {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(append([]*Child(nil), f.apis...), f.workers...)
}

// APIAddrs returns where the API instances that are up listen.
func (f *Fleet) APIAddrs() []string {
	var addrs []string
	for _, child := range f.Children() {
		if at, _ := child.Addresses(); at.API != "" {
			addrs = append(addrs, at.API)
		}
	}
	return addrs
}

// Workers returns how many workers should run.
func (f *Fleet) Workers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.workers)
}

// Await returns when every process listens.
func (f *Fleet) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		children, up := f.Children(), 0
		for _, child := range children {
			if at, _ := child.Addresses(); at.Admin != "" {
				up++
			}
		}
		if up == apiInstances+fewWorkers {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
