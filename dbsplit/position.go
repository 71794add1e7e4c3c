package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware"
)

var _ scaleaware.SystemSource = (*DB)(nil)

// Position returns a token that covers everything committed before the call. It is the position at which the primary
// would insert into its log, not the one up to which the log was flushed: with synchronous_commit off a commit is
// visible before it is flushed.
//
// While Run runs, its monitor asks, over its own connection: callers who come together share one question, and a pool that
// is used up keeps nobody from an answer.
func (db *DB) Position(ctx context.Context) (scaleaware.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	asked := time.Now()
	writer := db.writer.Load()
	at, err := db.sample(ctx, writer, asked)
	for writer != db.writer.Load() && ctx.Err() == nil {
		writer = db.writer.Load()
		at, err = db.sample(ctx, writer, asked)
	}
	if errors.Is(err, errNoMonitor) {
		at, err = db.askPosition(ctx)
		if err != nil && ctx.Err() == nil && !db.closed.Load() {
			asked = time.Now()
			at, err = db.askPosition(ctx) // the pooled connection may have been lost long ago
		}
	}
	if err != nil {
		return scaleaware.Token{}, err
	}
	db.system.CompareAndSwap(0, at.System)
	db.sighted(at, asked, false)
	db.in.token(tokenCaptured)
	return at, nil
}

var errNoMonitor = errors.New("dbsplit: Run is not running")

// sample waits for the monitor's next answer of n to a probe that was sent after mark. The writer must be a primary then.
func (db *DB) sample(ctx context.Context, n *node, mark time.Time) (scaleaware.Token, error) {
	for {
		s := db.snap.Load()
		if s == nil || !s.has(n) {
			return scaleaware.Token{}, errNoMonitor
		}
		v := &s.views[n.index]
		switch {
		case !v.sent.After(mark):
		case n == db.writer.Load() && n.index != s.writer: // writes have just moved there, and the snapshot does not know yet
		case !v.up:
			return scaleaware.Token{}, fmt.Errorf("dbsplit: position of %s: %w", n.name, db.monitor.reason(n.index))
		case n.index == s.writer && v.role != rolePrimary:
			return scaleaware.Token{}, ErrNotPrimary
		default:
			return v.at, nil
		}
		db.wake(n)
		select {
		case <-s.next:
		case <-ctx.Done():
			return scaleaware.Token{}, fmt.Errorf("dbsplit: position of %s: %w", n.name, ctx.Err())
		}
	}
}

// System returns the system identifier of the cluster, or 0 before it is known. While the primary was never seen, its
// replicas tell it.
func (db *DB) System() uint64 {
	system := db.system.Load()
	if s := db.snap.Load(); system == 0 && s != nil {
		for i := range s.views {
			if id := s.views[i].at.System; id != 0 && system != 0 && id != system {
				return 0 // one of them is a stranger
			} else if id != 0 {
				system = id
			}
		}
	}
	return system
}

func (db *DB) askPosition(ctx context.Context) (scaleaware.Token, error) {
	n := db.writer.Load()
	c, err := db.acquireRead(ctx, n)
	if err != nil {
		return scaleaware.Token{}, fmt.Errorf("dbsplit: position of %s: %w", n.name, err)
	}
	defer c.Release()
	p, err := probe(ctx, c)
	if err == nil && p.recovering {
		err = ErrNotPrimary
	}
	return p.at, err
}
