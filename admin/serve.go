package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Serve serves handler on listener until ctx ends, then gives requests 5 s to end, closes the listener and returns nil.
// It bounds headers, slow clients and idle connections, and an answer has to be made and taken within 5 minutes; it does
// not call Handler.Run.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := newServer(handler)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err := server.Shutdown(grace)
		if err != nil {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(listener)
	if !stop() {
		if err := <-stopped; err != nil {
			return fmt.Errorf("admin: stop the listener: %w", err)
		}
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin: serve %s: %w", listener.Addr(), err)
}

func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      5 * time.Minute, // for a client that does not read: some paths are open to strangers
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}
