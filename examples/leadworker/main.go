// Command leadworker works on the jobs that API instances enqueue: by priority, within the limits that hold for all
// workers together, and as many at once as the autoscaler finds right. Read run from top to bottom; it is the main of a
// worker of your own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/queue"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks to stop, a second one does not ask
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "leadworker:", err)
		os.Exit(1)
	}
}

// Slots are how many jobs a worker runs at once, over all queues.
const (
	slots    = 20
	maxSlots = 80
)

func run(ctx context.Context) error {
	ctx, stop := lead.WithLifeline(ctx)
	defer stop()

	// Configuration, and what it names. Servers that are down do not matter here: they heal, readiness tells.
	config, err := lead.FromEnvironment("worker")
	if err != nil {
		return err
	}
	service, err := lead.Open(ctx, config, lead.Log(config))
	if err != nil {
		return err
	}
	defer service.Close()

	// The worker. Weights and limits are the queues' own, in package lead; they are the same for every worker.
	worker, err := service.NewWorker(&queue.WorkerOptions{Concurrency: slots, MaxConcurrency: maxSlots, DrainTimeout: config.DrainTimeout})
	if err != nil {
		return err
	}
	if err := autoscale(service, worker, os.Getenv("AUTOSCALE")); err != nil {
		return err
	}

	management, err := lead.Listen("ADMIN_ADDR", config.AdminAddr)
	if err != nil {
		return err
	}
	defer management.Close()
	ops, err := service.Admin(config)
	if err != nil {
		return err
	}

	// Background work, on a context of its own: jobs that are let finish still need it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	work, background := errgroup.WithContext(background)
	work.Go(func() error { return service.Run(background) })
	work.Go(func() error { return ops.Run(background) })
	work.Go(func() error { return admin.Serve(background, management, ops) })
	context.AfterFunc(background, stop) // no worker without it

	// Run stops in two stages: it fetches no more jobs and lets those that run finish, for DRAIN_TIMEOUT; what still runs
	// then is cancelled and put back, with no attempt counted, and another worker has it.
	err = lead.Announce(lead.Addresses{Admin: management.Addr().String()})
	if err == nil {
		service.AwaitSchema(ctx) // no jobs before what they read and write
		err = worker.Run(ctx)
	}
	stopBackground()
	return errors.Join(err, work.Wait())
}
