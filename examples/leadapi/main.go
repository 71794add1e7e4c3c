// Command leadapi is an API instance: sessions, cached reads that see the caller's writes, and writes with their jobs in
// one transaction, over plain net/http. Read run from top to bottom; it is the main of a service of your own.
//
// `leadapi migrate up|down|status|check` changes the schema, or looks at it, and ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/examples/lead"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal asks to stop, a second one does not ask
	command := run
	if len(os.Args) > 1 {
		command = func(ctx context.Context) error { return other(ctx, os.Args[1:]) }
	}
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "leadapi:", err)
		os.Exit(1)
	}
}

func other(ctx context.Context, args []string) error {
	if args[0] != "migrate" {
		return fmt.Errorf("what is %q? Without arguments it serves, the only command is migrate", args[0])
	}
	return migrate(ctx, args[1:], os.Stdout)
}

func run(ctx context.Context) error {
	ctx, stop := lead.WithLifeline(ctx)
	defer stop()

	// Configuration, and what it names. Servers that are down do not matter here: they heal, readiness tells.
	config, err := lead.FromEnvironment("api")
	if err != nil {
		return err
	}
	log := lead.Log(config)
	service, err := lead.Open(ctx, config, log)
	if err != nil {
		return err
	}
	defer service.Close()

	// Both listeners, before anything runs: the API for clients, the management for operators and probes.
	api, err := lead.Listen("PORT", net.JoinHostPort(config.Host, config.Port))
	if err != nil {
		return err
	}
	defer api.Close()
	management, err := lead.Listen("ADMIN_ADDR", config.AdminAddr)
	if err != nil {
		return err
	}
	defer management.Close()
	var stopping atomic.Bool
	ops, err := service.Admin(config, admin.Check{Name: "accepting", Ready: func(context.Context) error {
		if stopping.Load() {
			return errors.New("the instance is stopping")
		}
		return nil
	}})
	if err != nil {
		return err
	}

	// Background work, on a context of its own: requests that are let finish still need it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	work, background := errgroup.WithContext(background)
	work.Go(func() error { return service.Run(background) })
	work.Go(func() error { return ops.Run(background) })
	work.Go(func() error { return admin.Serve(background, management, ops) })

	// The API. Without a bound on the time of a body, a client that never finishes it keeps read-only mode from ever being
	// drained. There is none on the time of an answer: streams of events stay open.
	server := &http.Server{Handler: service.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute}
	server.RegisterOnShutdown(service.EndStreams)
	served := make(chan error, 1)
	go func() { served <- server.Serve(api) }()
	announced := lead.Announce(lead.Addresses{API: api.Addr().String(), Admin: management.Addr().String()})

	// Until somebody asks to stop, or something cannot go on.
	if announced == nil {
		select {
		case <-ctx.Done():
		case <-background.Done():
		case err = <-served:
			served <- err
		}
	}

	// From the outside in: not ready, so that no new requests are sent; the ones on their way still served; the ones in
	// flight let finish; and only then what they stand on.
	stopping.Store(true)
	pause(background, config.DrainDelay)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), config.DrainTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		log.Warn("requests that did not end within DRAIN_TIMEOUT are cut off", "error", err, "close", server.Close())
	}
	if err = <-served; errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	stopBackground()
	return errors.Join(announced, err, work.Wait())
}

// pause waits, unless what requests stand on is gone.
func pause(background context.Context, d time.Duration) {
	select {
	case <-background.Done():
	case <-time.After(d):
	}
}
