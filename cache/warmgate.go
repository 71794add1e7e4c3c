package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	gatePause    = time.Second
	maxGatePause = 30 * time.Second
)

// errWarming says that the first warming has not ended.
var errWarming = errors.New("cache: the declared sets are being warmed, wait")

// calm waits until Options.WarmGate lets the warming go on: it makes way for those who wait for the origin.
func (s *Store) calm(ctx context.Context) error {
	for pause := gatePause; ; pause = min(2*pause, maxGatePause) {
		if s.opts.WarmGate == nil {
			return nil
		}
		busy := s.opts.WarmGate(ctx)
		if busy == nil {
			return nil
		}
		s.opts.Logger.InfoContext(ctx, "cache: warming waits", "reason", busy, "for", pause)
		s.in.background.WithLabelValues("cache", "warm waits").Inc()
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("cache: warming ended while it waited (%w): %w", busy, err)
		}
	}
}

// warmFirst warms all sets when the store begins to run, while Ready waits for it.
func (s *Store) warmFirst(ctx context.Context) {
	defer s.warmed.Store(true)
	ctx, cancel := context.WithTimeout(ctx, s.opts.WarmBeforeReady)
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.warmed.Store(true) })() // a set's Keys may ignore their context
	if _, err := s.Warm(ctx); err != nil && !errors.Is(err, context.Canceled) {
		s.in.failed(ctx, "warm", err)
	}
}
