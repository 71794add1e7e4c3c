package dbsplit

import (
	"context"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware"
)

// settle waits until every node was probed once and writes have moved where they belong, for as long as a probe may
// take, and returns the newest snapshot: nil when Run has ended.
func (db *DB) settle(ctx context.Context, s *snapshot) (*snapshot, error) {
	timer := time.NewTimer(db.opts.ProbeTimeout)
	defer timer.Stop()
	for s != nil && !s.settled {
		select {
		case <-s.next:
			s = db.snap.Load()
		case <-timer.C:
			return s, nil
		case <-ctx.Done():
			return s, fmt.Errorf("dbsplit: while waiting for the first probes: %w", ctx.Err())
		}
	}
	return s, nil
}

// reaches returns an error when, without the monitor, the primary has not reached the timeline of what the caller of a
// read has written: then a server that was promoted later has it.
func (db *DB) reaches(ctx context.Context, w *scaleaware.Watermark) error {
	if w.Changes() == 0 {
		return nil
	}
	written, err := w.Written(ctx)
	if err != nil || len(written) == 0 {
		return nil // the source of the position is this DB's primary itself
	}
	known := db.asOf()
	if need := written.For(known.System); known.IsZero() || need.Timeline > known.Timeline {
		if known, err = db.Position(ctx); err != nil {
			return fmt.Errorf("%w: it cannot be told whether the primary has what this caller wrote: %w", ErrNoNode, err)
		}
		if need = written.For(known.System); need.Timeline > known.Timeline {
			return outdated(db.writer.Load().name, need)
		}
	}
	return nil
}

func outdated(primary string, need scaleaware.Token) error {
	return fmt.Errorf("%w: what this caller wrote is on timeline %d, which neither primary %s nor any replica in reach has; "+
		"let this process reach the server that was promoted, or stop the old primary", ErrNoNode, need.Timeline, primary)
}
