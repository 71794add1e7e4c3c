package dbsplit

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// question notes that the writer has refused a write as read-only, and has all nodes looked at: another one may be the primary.
// A session that is not read-only by itself was in a transaction that its caller has made so.
func (db *DB) question(conn *pgconn.PgConn) {
	n := db.writer.Load()
	if !n.pooled() && !inRecovery(conn) && conn.ParameterStatus(sessionReadOnly) == "off" {
		db.wake(n)
		return
	}
	db.doubted.Store(max(1, int64(db.now())))
	for _, n := range db.members() {
		db.wake(n)
	}
}

// confirm waits, after such a refusal, until the writer was found to take writes, or all nodes that are up were looked at, for as
// long as a look may take and the write may wait. It is waited for once: afterwards the writer is asked again.
func (w *succession) confirm(ctx context.Context) {
	db := w.db
	since := db.doubted.Load()
	if since == 0 || w.impatient || db.opts.FailoverWait < 0 {
		return
	}
	before := w.until
	w.start()
	timer := time.NewTimer(min(time.Until(w.until), db.opts.ProbeTimeout))
	defer timer.Stop()
	for s := db.snap.Load(); s != nil && !s.confirms(db.opened.Add(time.Duration(since))); s = db.snap.Load() {
		select {
		case <-s.next:
		case <-timer.C:
			db.doubted.CompareAndSwap(since, 0)
			return
		case <-ctx.Done():
			return
		}
	}
	if !db.missing(db.writer.Load()) {
		w.until = before // it was no primary that was waited for
	}
	db.doubted.CompareAndSwap(since, 0)
}

// confirms reports whether the writer has answered a probe that was sent after t, as a primary whose sessions are not read-only by
// themselves, or else all nodes that are up have answered one.
func (s *snapshot) confirms(t time.Time) bool {
	if w := &s.views[s.writer]; w.up && w.role == rolePrimary && w.sent.After(t) && !s.nodes[s.writer].refuses.Load() {
		return true // what was refused was its own session's or transaction's doing
	}
	for i := range s.views {
		if v := &s.views[i]; s.nodes[i] != nil && v.up && !v.sent.After(t) {
			return false
		}
	}
	return true
}
