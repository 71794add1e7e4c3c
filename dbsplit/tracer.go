package dbsplit

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
)

// tracer watches one pool. On the pool that writes it marks the callers' watermarks: every way to send a statement,
// also through an acquired connection, a transaction, a batch or COPY, ends in one of its hooks before the caller gets
// the result.
type tracer struct {
	db      *DB
	writes  bool
	door    door
	waiting atomic.Int64
	usage   usage
}

const connStateKey = "dbsplit"

// connState belongs to one connection, which serves one caller at a time.
type connState struct {
	opened    time.Duration // times are since the DB was opened
	acquired  time.Duration
	begun     time.Duration
	ended     time.Duration // 0 while a statement runs, and after one that is not observed
	operation prometheus.Observer
	holder    *scaleaware.Watermark // of the context that acquired the connection
	sql       string                // of the statement under way, or what stands for it
	misrouted bool                  // that one was counted as one that writes
	gated     bool                  // serves a write that the gate refuses
	doomed    bool                  // must not be used again
	at        scaleaware.Token      // what the server had replayed when it was asked over this connection, if it was
}

func newConnState(conn *pgx.Conn, opened time.Duration) {
	st := &connState{opened: opened}
	conn.PgConn().CustomData()[connStateKey] = st
}

func stateOf(conn *pgx.Conn) *connState {
	if conn == nil {
		return nil
	}
	st, _ := conn.PgConn().CustomData()[connStateKey].(*connState)
	return st
}

func (t *tracer) begin(conn *pgx.Conn, sql, otherwise string) {
	st := stateOf(conn)
	if st == nil {
		return
	}
	if t.writes || st.begun >= st.acquired {
		st.begun = t.db.now()
	} else {
		st.begun = st.acquired // nobody acquires a connection to read over before there is something to send
	}
	st.ended, st.operation = 0, t.db.in.operation(sql, otherwise)
	st.sql, st.misrouted = sql, false
}

func (t *tracer) end(ctx context.Context, conn *pgx.Conn, err error) {
	st := stateOf(conn)
	if st == nil {
		return
	}
	if st.operation != nil {
		st.ended = t.db.now()
		st.operation.Observe((st.ended - st.begun).Seconds())
		st.operation = nil
	}
	if !t.writes {
		if !st.misrouted {
			t.misrouted(conn, st.sql, err)
		}
		return
	}
	// Inside a transaction nothing is committed yet, and a position taken now would be too low.
	if pg := conn.PgConn(); pg.TxStatus() == 'I' || pg.IsClosed() {
		scaleaware.WatermarkFrom(ctx).RaiseFrom(t.db)
	}
	if sqlState(err) == stateReadOnly {
		st.doomed = true
		t.db.question(conn.PgConn())
	}
}

func (t *tracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	t.begin(conn, strings.TrimPrefix(data.SQL, guard+";\n"), "query")
	return ctx
}

func (t *tracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	t.end(ctx, conn, data.Err)
}

func (t *tracer) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	if q := data.Batch.QueuedQueries; len(q) == 2 && q[0].SQL == guard {
		t.begin(conn, q[1].SQL, "query")
		return ctx
	}
	t.begin(conn, "", "batch")
	return ctx
}

func (t *tracer) TraceBatchQuery(_ context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	t.misrouted(conn, data.SQL, data.Err)
}

func (t *tracer) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	t.end(ctx, conn, data.Err)
}

func (t *tracer) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	t.begin(conn, "", copying)
	if st := stateOf(conn); st != nil {
		st.sql = copying
	}
	return ctx
}

func (t *tracer) TraceCopyFromEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromEndData) {
	t.end(ctx, conn, data.Err)
}

func (t *tracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

func (t *tracer) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	t.door.leave(data.Err)
}

func (t *tracer) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	return ctx
}

func (t *tracer) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, data pgxpool.TraceAcquireEndData) {
	if data.Conn == nil {
		return
	}
	now := t.db.now()
	t.usage.add(1, now)
	if st := stateOf(data.Conn); st != nil {
		st.acquired = now
		if t.writes {
			st.holder = scaleaware.WatermarkFrom(ctx)
		}
	}
}

// acquiredAt is when c was acquired.
func (t *tracer) acquiredAt(c *pgxpool.Conn) time.Duration {
	if st := stateOf(c.Conn()); st != nil {
		return st.acquired
	}
	return t.db.now()
}

// endedAt is when the statement that c was acquired to read by ended.
func (db *DB) endedAt(c *pgx.Conn) time.Duration {
	if st := stateOf(c); st != nil && st.ended > st.acquired {
		return st.ended
	}
	return db.now()
}

// TraceRelease marks once more: the statements may have run under another context than the one that acquired, or below
// pgx, where no tracer sees them. A connection that is closed keeps its place in the pool until the server has been told, which may
// hang: it counts as used until the next sample.
func (t *tracer) TraceRelease(_ *pgxpool.Pool, data pgxpool.TraceReleaseData) {
	if !t.writes {
		if st := stateOf(data.Conn); st != nil {
			st.gated = false
		}
		if !data.Conn.IsClosed() {
			t.usage.add(-1, t.db.endedAt(data.Conn))
		}
		return
	}
	if !data.Conn.IsClosed() {
		t.usage.add(-1, t.db.now())
	}
	if st := stateOf(data.Conn); st != nil {
		st.holder.RaiseFrom(t.db)
		st.holder = nil
	}
}
