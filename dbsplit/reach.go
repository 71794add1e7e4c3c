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

// begin waits for the first probes where a read needs what they tell. While they have told nothing at all it is not known
// whose positions the caller's are.
func (r *Reader) begin(ctx context.Context, s *snapshot, w *scaleaware.Watermark) (*snapshot, error) {
	known, open := w.Known()
	asks := len(known)+len(open) > 0
	if !asks && !r.s.current && !r.s.strict {
		return s, nil
	}
	s, err := r.db.settle(ctx, s)
	if err == nil && asks && s != nil && !s.settled && r.db.System() == 0 {
		err = fmt.Errorf("%w: no server has answered yet, so it cannot be told whether one has what this caller wrote", ErrNoNode)
	}
	return s, err
}

// reaches returns an error when, without the monitor, the primary has not reached the timeline of what the caller of a
// read has written: then a server that was promoted later has it.
func (db *DB) reaches(ctx context.Context, w *scaleaware.Watermark) error {
	written, err := db.written(ctx, w)
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
