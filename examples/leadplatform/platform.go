package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/queue"
)

type platformOptions struct {
	rate    float64
	clients int
	state   string
}

// Instances at the start; the autoscaler moves the workers between fewWorkers and manyWorkers by the runbook's rule.
const (
	apiInstances = 3
	fewWorkers   = 2
	manyWorkers  = 5
)

// runPlatform starts everything from the ground up and takes it down again from the top.
func runPlatform(ctx context.Context, c lead.Config, o platformOptions, p programs, log *slog.Logger) error {
	front, err := lead.Listen("PORT", net.JoinHostPort(c.Host, c.Port))
	if err != nil {
		return err
	}
	defer front.Close()
	management, err := lead.Listen("ADMIN_ADDR", c.AdminAddr)
	if err != nil {
		return err
	}
	defer management.Close()

	c.PlainHTTP = true // on loopback

	servers, err := OpenServers(ctx, &c)
	if err != nil {
		return err
	}
	defer servers.Close()
	if err := lead.Migrate(ctx, c.PrimaryURL); err != nil {
		return err
	}
	if len(c.SessionSecrets) == 0 {
		c.SessionSecrets = []string{rand.Text() + rand.Text()}
	}
	s, err := lead.Open(ctx, c, log)
	if err != nil {
		return err
	}
	defer s.Close()
	ops, err := s.Admin(c)
	if err != nil {
		return err
	}

	balancer := NewBalancer()
	defer balancer.Close()
	fleet := NewFleet(c, p, log)
	base := "http://" + front.Addr().String()
	traffic := NewTraffic(base, o.clients, o.rate)
	state := &State{api: base, admin: "http://" + management.Addr().String(), path: o.state, fleet: fleet, config: c, ownServers: servers.postgres != nil}
	defer state.Remove()
	fleet.Changed = func() {
		balancer.Set(fleet.APIAddrs())
		if err := state.Write(); err != nil {
			log.Error("state file", "error", err)
		}
	}
	rule := queue.ScaleRule{Queue: lead.QueueLeads, Above: 1000, Up: manyWorkers, Below: 100, Down: fewWorkers}
	if err := s.Jobs.Autoscale(rule, func(_ context.Context, d queue.Decision) error { return fleet.SetWorkers(d.Workers) }, nil); err != nil {
		return err
	}

	// Each layer stops after the one above it: clients, then processes, then what they lean on.
	base1, stopBase := layer(ctx)
	defer stopBase()
	var ground errgroup.Group
	for _, run := range []func(context.Context) error{
		s.Run, ops.Run,
		func(ctx context.Context) error { return admin.Serve(ctx, management, ops) },
		func(ctx context.Context) error { return admin.Serve(ctx, front, balancer) },
	} {
		ground.Go(func() error { defer stopBase(); return run(base1) })
	}
	processes, stopProcesses := context.WithCancel(base1)
	defer stopProcesses()
	var middle errgroup.Group
	middle.Go(func() error { return fleet.Run(processes) })

	top, stopTop := context.WithCancel(ctx)
	defer stopTop()
	context.AfterFunc(base1, stopTop)
	var clients errgroup.Group
	if err := fleet.Await(top); err == nil {
		fmt.Print(state.Welcome())
		if o.rate > 0 {
			clients.Go(func() error { return traffic.Run(top) })
		}
		report := &Report{traffic: traffic, fleet: fleet, service: s, token: c.AdminToken}
		clients.Go(func() error { return report.Run(top) })
	}
	<-top.Done()
	fmt.Println("\nstopping: clients, instances and workers, then servers …")
	errs := []error{clients.Wait()}
	stopProcesses()
	errs = append(errs, middle.Wait())
	stopBase()
	return errors.Join(append(errs, ground.Wait())...)
}

// layer returns a context that ends only when it is told to, and keeps ctx's values.
func layer(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(ctx))
}

// startTimeout bounds how long servers and processes may take to come up.
const startTimeout = 60 * time.Second
