package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware"
)

// maxTries is how often one read is sent: once, and once more to another node. When both were replicas that cancelled it for their
// replay, the primary, which never does that, is asked in the end.
const maxTries = 2

// Reader sends statements to replicas, over read-only sessions. It takes sqlc's queries as the DB does.
type Reader struct {
	db *DB
	s  readSettings
}

// Read returns a handle that reads from replicas which have what the caller has written: the watermark in the context
// of each call says what that is. When no replica qualifies, the primary answers. Sessions are read-only wherever they
// go, so a write fails in the same way, with ErrWriteInRead, with and without replicas.
func (db *DB) Read(opts ...ReadOption) *Reader {
	if len(opts) == 0 {
		return &db.reader
	}
	r := &Reader{db: db, s: db.defaultRead()}
	for _, o := range opts {
		o(&r.s)
	}
	return r
}

// attempt is what is known of a read that may be sent again.
type attempt struct {
	not       uint64 // nodes that have failed it
	failed    error  // why
	conflicts int    // how many of them were replicas that cancelled it for their replay
	last      bool   // only the primary is left
	patience  *succession
}

// excluded are the nodes that must not be tried. The primary may be one that has failed the read as a replica.
func (a *attempt) excluded(db *DB) uint64 {
	if a.last {
		return ^(1 << db.writer.Load().index)
	}
	return a.not
}

// vain reports whether d sends the read, for which only the primary is left, to a standby that has failed it: writes go there, and
// nobody was promoted. One that has just been promoted may still be shown as a replica.
func (a *attempt) vain(d *decision) bool {
	return a.last && d.onReplica && a.not&(1<<d.node.index) != 0 && d.snapshot.nodes[d.snapshot.writer] == d.node
}

// wait waits as a write does, for a read for which only the primary is left, and n is none that answers.
func (a *attempt) wait(ctx context.Context, db *DB, n *node, failed error) bool {
	if a.patience == nil {
		a.patience = &succession{db: db}
	}
	return a.patience.wait(ctx, n, failed)
}

// lease is one read's hold on a node.
type lease struct {
	conn      guarded
	db        *DB
	node      *node
	watermark *scaleaware.Watermark
	begun     time.Duration
	onReplica bool
}

// lease chooses a node and takes a connection.
func (r *Reader) lease(ctx context.Context, a *attempt) (lease, error) {
	for {
		var d decision
		not := a.excluded(r.db)
		err := r.decide(ctx, not, &d)
		if err == nil && a.vain(&d) {
			err = fmt.Errorf("%w: primary %s is in recovery, promote it or another node", ErrNoNode, d.node.name)
		}
		if err != nil {
			if a.last && errors.Is(err, ErrNoNode) {
				if a.excluded(r.db) != not {
					continue // writes have moved meanwhile
				}
				if n := r.orphan(&d); n != nil && a.wait(ctx, r.db, n, ErrNotPrimary) {
					continue
				}
			}
			return lease{}, a.after(err)
		}
		conn, err := r.acquire(ctx, &d)
		if err == nil {
			var held bool
			if held, err = r.holds(ctx, &conn, &d); !held {
				conn.Release()
				d.node.load.end()
				if err == nil {
					continue
				}
			}
		}
		if err == nil {
			if r.s.because != 0 {
				d.because = r.s.because
			}
			r.db.served(&d)
			r.report(ctx, &d, conn)
			// Connecting says nothing about the node, and waiting is in inflight.
			return lease{conn: conn, db: r.db, node: d.node, watermark: d.watermark, begun: conn.since, onReplica: d.onReplica}, nil
		}
		if ctx.Err() != nil || r.db.closed.Load() || errors.Is(err, ErrSaturated) {
			return lease{}, err
		}
		if !errors.Is(err, errUnproven) {
			r.db.fail(d.node)
		}
		if a.last {
			if a.wait(ctx, r.db, d.node, err) {
				continue
			}
			return lease{}, err
		}
		if a.not |= 1 << d.node.index; bits.OnesCount64(a.not) >= maxTries {
			return lease{}, err
		}
		a.failed = err
	}
}

// after joins why the first node failed to why there is no second one.
func (a *attempt) after(err error) error {
	if a.failed == nil || !errors.Is(err, ErrNoNode) {
		return err
	}
	return fmt.Errorf("%w: %w", err, a.failed)
}

// again reports whether a read that failed on l with err may be tried elsewhere, and notes that. A replica that was asked with
// Hedge before only the primary was left may fail it, too.
func (a *attempt) again(ctx context.Context, l *lease, err error) bool {
	if a.last && !l.onReplica || !readRetry(ctx, err, l.conn.Conn().IsClosed(), l.onReplica) {
		return false
	}
	a.not |= 1 << l.node.index
	a.failed = err
	switch {
	case conflicted(err, l.onReplica):
		a.conflicts++
		a.last = a.last || a.conflicts == maxTries
	case refusedSerializable(err):
		a.last = true // no other replica has that either
	}
	return a.last || bits.OnesCount64(a.not) < maxTries
}

// give gives the connection back.
func (l *lease) give(err error) {
	conn := l.conn.Conn()
	switch closed := conn.IsClosed(); {
	case lost(err, closed) && !ranOut(err):
		l.db.fail(l.node)
	case l.onReplica && !closed && !inRecovery(conn.PgConn()) && !l.node.pooled():
		l.db.wake(l.node) // it was promoted
	}
	l.saw()
	l.conn.Release()
	l.node.load.end()
}

// saw makes what was read a floor for the caller's later reads, if the DB is to do that.
func (l *lease) saw() {
	switch {
	case !l.db.opts.MonotonicReads:
	case l.onReplica:
		l.watermark.RaiseFrom(l.node.sight.Load())
	default:
		l.watermark.RaiseFrom(l.db)
	}
}

// ranOut reports whether a caller's context ended: that closes the connection, but says nothing about the node.
func ranOut(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err)
}

var (
	_ rowQuerier = (*Reader)(nil)
	_ pgx.Row    = (*readRow)(nil)
	_ pgx.Rows   = (*readRows)(nil)
)
