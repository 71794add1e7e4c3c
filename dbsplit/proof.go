package dbsplit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// errUnproven is that the monitor did not tell in time whether a node still has what it was chosen for. Its connections are well.
var errUnproven = errors.New("dbsplit: not known in time whether the node has restarted")

// holds reports whether what the node was chosen for still holds, after the wait for a connection: the position, and a bound
// that was asked for. If not, the monitor knows better by now. Only who has a watermark, a token or a bound relies on a position.
func (r *Reader) holds(ctx context.Context, conn *guarded, d *decision) (bool, error) {
	if !d.onReplica || d.snapshot == nil || !r.s.strict && d.watermark == nil && d.demand.token.IsZero() {
		return true, nil
	}
	v := &d.snapshot.views[d.node.index]
	if newer := r.db.snap.Load(); newer != nil && newer.has(d.node) {
		v = &newer.views[d.node.index]
	}
	if held, err := r.db.stands(ctx, conn, d, v); !held {
		return false, err
	}
	return !r.s.strict || v.bounded && r.db.now()-v.fresh <= r.s.bound, nil
}

// stands reports whether conn's server still has what the probe that d is based on found there. While a connection lives, its
// server does not restart, so that is sure for one that was opened before the probe. Behind any other there may be a replica
// that has restarted since, at an older position: unless the monitor has looked again, at latest, that is asked over the
// connection, once.
func (db *DB) stands(ctx context.Context, conn *guarded, d *decision, latest *view) (bool, error) {
	st, chosen := stateOf(conn.Conn()), &d.snapshot.views[d.node.index]
	if st == nil || st.opened < chosen.sent.Sub(db.opened) || d.node.pooled() {
		return true, nil
	}
	if !d.demand.seen { // for what was seen no position stands yet: the monitor looks for one
		at := latest.at
		if !latest.up || st.opened >= latest.sent.Sub(db.opened) {
			if st.at.IsZero() || ahead(chosen.at, st.at) {
				p, err := probe(ctx, *conn, pgx.QueryExecModeExec) // in one round trip
				if err != nil {
					return false, err
				}
				st.at, conn.since = p.at, db.now()
			}
			at = st.at
		}
		if at.System == chosen.at.System && !ahead(chosen.at, at) {
			return true, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout/4)
	defer cancel()
	if _, err := db.sample(ctx, d.node, db.opened.Add(st.opened)); err != nil && !errors.Is(err, ErrNotPrimary) { // or else it has looked
		return false, fmt.Errorf("%w: %w", errUnproven, err)
	}
	return false, nil
}
