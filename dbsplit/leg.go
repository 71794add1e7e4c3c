package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// leg is one of the two ways of a read with Hedge: a node, and a goroutine that waits there for the first row.
type leg struct {
	r  Reader // the caller's, but that at is told
	at Provenance
	// ctx has the caller's values. It ends with the caller's, until the leg has lost.
	ctx    context.Context //nolint:containedctx // of the one statement
	cancel context.CancelFunc
	unlink func() bool

	mu    sync.Mutex
	lost  bool
	held  bool // there is a lease, which is not given back yet
	lease lease

	done     chan struct{} // closed when the rest is set
	rows     pgx.Rows
	row      bool // rows is at its first one; or else it has ended
	err      error
	panicked any
}

// newLeg makes a leg; because is 0 when the way there decides that.
func (r *Reader) newLeg(ctx context.Context, because reason) *leg {
	l := &leg{r: Reader{db: r.db, s: r.s}, done: make(chan struct{}), err: errEnded}
	l.r.s.because, l.r.s.told = because, &l.at
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.unlink = context.AfterFunc(ctx, l.cancel)
	return l
}

var (
	errLost  = errors.New("dbsplit: the other node has answered")
	errEnded = errors.New("dbsplit: a hook, such as Options.Tracer, has ended the goroutine that was to send the read")
)

// lead takes a node and a connection to it.
func (l *leg) lead(ctx context.Context, a *attempt) error {
	lease, err := l.r.lease(ctx, a)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease, l.held = lease, !l.lost
	if l.lost {
		l.give(nil)
		return errLost
	}
	return nil
}

// run sends the statement and waits for the first row. With an attempt it takes a node before.
func (l *leg) run(a *attempt, sql string, args []any) {
	defer close(l.done)
	defer func() { l.panicked = recover() }() // of a hook, or of an argument; it is for the caller's goroutine
	if a != nil {
		if err := l.lead(l.ctx, a); err != nil {
			l.err = err
			return
		}
	}
	var err error
	l.rows, err = l.lease.conn.Query(l.ctx, sql, args...)
	if err == nil {
		l.row = l.rows.Next()
		if !l.row {
			err = l.rows.Err()
		}
	}
	l.err = err
}

func (l *leg) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// answered reports whether a leg that is over has got an answer. A panic is none.
func (l *leg) answered() bool { return l.err == nil && l.panicked == nil }

// unanswered reports whether a leg that is over may be repeated elsewhere.
func (l *leg) unanswered(ctx context.Context) bool {
	return l.panicked == nil && readRetry(ctx, l.err, l.lease.conn.Conn().IsClosed(), l.lease.onReplica)
}

// end ends what is left of a leg.
func (l *leg) end() {
	l.unlink()
	l.cancel()
}

// answer gives what a leg got to the caller, or reports that the read may be sent again.
func (l *leg) answer(r *Reader, ctx context.Context, a *attempt) (rows pgx.Rows, again bool, err error) {
	if l.panicked != nil {
		l.end()
		l.lease.give(nil)
		panic(l.panicked)
	}
	if err := l.err; err != nil {
		again := a.again(ctx, &l.lease, err)
		if !again {
			defer r.tell(ctx, l.at)
		}
		l.end()
		l.lease.give(err)
		err = l.lease.explain(callersEnd(ctx, err))
		return errRows{err: err}, again, err
	}
	out := &legRows{leg: l, ahead: l.row}
	out.readRows = readRows{Rows: l.rows, r: r, ctx: ctx, lease: l.lease}
	told := false
	defer func() {
		if !told {
			out.Close()
		}
	}()
	out.start()
	r.tell(ctx, l.at)
	told = true
	if !l.row {
		out.Close()
	}
	return out, false, nil
}

// callersEnd makes an error of a leg, whose own context was cancelled because the caller's has ended, that of the caller's.
func callersEnd(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !ranOut(err) {
		return err
	}
	return fmt.Errorf("dbsplit: while waiting for an answer: %w", ctx.Err())
}

// legRows are the rows of the leg that won. The first one is there.
type legRows struct {
	readRows
	leg   *leg
	ahead bool
	ended bool
}

func (r *legRows) Next() bool {
	if r.ahead && !r.done {
		r.ahead = false
		return true
	}
	more := r.readRows.Next()
	r.endWith()
	return more
}

func (r *legRows) Scan(dest ...any) error {
	err := r.readRows.Scan(dest...)
	r.endWith()
	return err
}

func (r *legRows) Values() ([]any, error) {
	values, err := r.readRows.Values()
	r.endWith()
	return values, err
}

func (r *legRows) Close() {
	r.readRows.Close()
	r.endWith()
}

func (r *legRows) endWith() {
	if r.done && !r.ended {
		r.ended = true
		r.err = callersEnd(r.ctx, r.err)
		r.leg.end()
	}
}

// lose notes that the other leg's answer counts, so that this one takes no lease any more, and reports whether it has one.
func (l *leg) lose() (held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = true
	return l.held
}

// leave ends a leg that lost: its statement, and what is left of its rows. ctx ends with the DB.
func (l *leg) leave(ctx context.Context) {
	defer l.r.db.recovered("hedge") // of a hook, in giving the connection back
	l.unlink()
	defer l.cancel()
	if !l.lose() {
		l.cancel()
		l.ended()
		return
	}
	failed := l.over() // by itself
	patience, stop := context.WithTimeout(ctx, l.r.db.opts.ProbeTimeout)
	defer stop()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer l.r.db.recovered("hedge") // of a hook, in closing the rows
		l.ended()
		if l.rows != nil {
			l.rows.Close()
		}
	}()
	asked := l.ask(patience, drained)
	<-drained
	if asked {
		l.absorb(ctx, patience.Err() == nil)
	}
	if failed {
		l.give(l.err)
		return
	}
	l.give(nil)
}

// ended waits for the end of a leg that lost, and tells of a panic, which its caller does not hear of.
func (l *leg) ended() {
	<-l.done
	if l.panicked != nil {
		l.r.db.panicked("hedge", l.panicked)
	}
}

// ask asks the server to cancel the statement, again when that came before the statement, until drained. When patience
// ends, the connection is closed under it.
func (l *leg) ask(patience context.Context, drained <-chan struct{}) (asked bool) {
	conn := l.lease.conn.Conn().PgConn()
	for wait := time.Millisecond; ; wait = min(4*wait, 100*time.Millisecond) {
		timer := time.NewTimer(wait)
		select {
		case <-drained:
			timer.Stop()
			return asked
		case <-patience.Done():
			timer.Stop()
			l.cancel()
			return asked
		case <-timer.C:
		}
		if !l.lease.node.pooled() { // or else the pooler may have given the server to somebody else by then
			asked = true
			_ = conn.CancelRequest(patience) // the rows tell
		}
	}
}

// absorb makes sure that no cancelling is under way to a connection that others will use. PostgreSQL signals the session
// before it closes the connection that asked for it, and a session handles signals before it reads its next command: so
// after one more round trip there is none. It is closed when the server has not confirmed.
func (l *leg) absorb(ctx context.Context, confirmed bool) {
	ctx, cancel := context.WithTimeout(ctx, l.r.db.opts.ProbeTimeout)
	defer cancel()
	conn := l.lease.conn.Conn()
	if !confirmed {
		_ = conn.Close(ctx) // nothing can be done about it
		return
	}
	_ = conn.PgConn().Ping(ctx) // it may be what is cancelled; when it fails otherwise, the connection is closed
}

// give gives the lease of a leg that lost back. What it has read the caller has not seen.
func (l *leg) give(err error) {
	l.lease.watermark = nil
	l.lease.give(err)
}
