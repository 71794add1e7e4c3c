package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/queue"
)

// runAPI is the main of an API instance.
func runAPI(ctx context.Context, name string, c Config, log *slog.Logger) error {
	s, err := OpenService(ctx, name, c, log)
	if err != nil {
		return err
	}
	defer s.Close()
	listener, err := listen("PORT", net.JoinHostPort("127.0.0.1", c.Port))
	if err != nil {
		return err
	}
	return s.serve(ctx, c, Addresses{API: listener.Addr().String()}, func(ctx context.Context) error {
		return serveHTTP(ctx, listener, s.Handler())
	})
}

// runWorker is the main of a worker.
func runWorker(ctx context.Context, name string, c Config, log *slog.Logger) error {
	s, err := OpenService(ctx, name, c, log)
	if err != nil {
		return err
	}
	defer s.Close()
	worker, err := s.jobs.NewWorker(&queue.WorkerOptions{Concurrency: 20, DrainTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	queue.Handle(worker, s.score)
	queue.Handle(worker, s.notify)
	queue.Handle(worker, s.sync)
	queue.Handle(worker, s.digest)
	s.mode.CountJobs(worker.Writing)
	return s.serve(ctx, c, Addresses{}, worker.Run)
}

// serve runs main beside the service's background work and its management listener. What main still needs while it
// drains, the pools and the store, outlives it.
func (s *Service) serve(ctx context.Context, c Config, at Addresses, main func(context.Context) error) error {
	ops, err := s.Admin(c)
	if err != nil {
		return err
	}
	listener, err := listen("ADMIN_ADDR", c.AdminAddr)
	if err != nil {
		return err
	}
	at.Admin = listener.Addr().String()

	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	for _, run := range []func(context.Context) error{
		s.Run, ops.Run, func(ctx context.Context) error { return admin.Serve(ctx, listener, ops) },
	} {
		group.Go(func() error { return run(background) })
	}
	if err := announce(at); err != nil {
		stop()
		return errors.Join(err, group.Wait())
	}
	err = main(ctx)
	stop()
	return errors.Join(err, group.Wait())
}

// serveHTTP serves until ctx ends, then lets requests finish.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler) error {
	// Without a bound on the body, a client that never finishes it keeps read-only mode from ever being drained.
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	<-served
	return err
}

// listen names the variable to change when the address is taken.
func listen(variable, addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s, set %s to another (a port of 0 lets the system choose): %w", addr, variable, err)
	}
	return listener, nil
}
