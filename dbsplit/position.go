package dbsplit

import (
	"context"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware"
)

var _ scaleaware.SystemSource = (*DB)(nil)

// Position returns a token that covers everything committed before the call. It is the position at which the primary
// would insert into its log, not the one up to which the log was flushed: with synchronous_commit off a commit is
// visible before it is flushed.
func (db *DB) Position(ctx context.Context) (scaleaware.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	asked := time.Now()
	p, err := db.askPosition(ctx)
	if err != nil && ctx.Err() == nil && !db.closed.Load() {
		asked = time.Now()
		p, err = db.askPosition(ctx) // the pooled connection may have been lost long ago
	}
	if err != nil {
		return scaleaware.Token{}, err
	}
	if p.recovering {
		return scaleaware.Token{}, ErrNotPrimary
	}
	db.system.CompareAndSwap(0, p.at.System)
	db.sighted(p.at, asked)
	db.in.token(tokenCaptured)
	return p.at, nil
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

func (db *DB) askPosition(ctx context.Context) (position, error) {
	n := db.writer.Load()
	c, err := db.acquireRead(ctx, n)
	if err != nil {
		return position{}, fmt.Errorf("dbsplit: position of %s: %w", n.name, err)
	}
	defer c.Release()
	return probe(ctx, c)
}
