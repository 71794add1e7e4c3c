package dbsplit

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Hedge sends a read to a second node when the first one has not answered after delay, counted from when the statement is
// sent; zero means what 95 of 100 recent reads with Hedge take. The answer that comes first counts. It is for QueryRow and for
// Query, until the first row; all else is sent once.
//
// The second node has what the read must see, as the first has, and is chosen as after a failure: when no other replica
// qualifies, the primary, unless FallBack spares it. Of all reads of the DB with Hedge at most one in twenty is sent twice, so of
// the first nineteen none. When one of the two fails, the other is waited for, and no third node is asked but the primary, when
// both were replicas that cancelled the read for their replay, or one refused what is serializable.
//
// The node that was too slow is asked to cancel the statement, and its connection goes back to the pool when the server has
// done so. Behind a pooler nothing is cancelled. Where the statement has not ended within Options.ProbeTimeout, the connection is
// closed. It does not count as a failure of the node.
//
// OnRoute and ReadTracer are told once, of the answer that counts, when it is there; its reason is hedge when the second node
// gave it. Arguments are copied first: a read is sent once when one of them is not plain. Plain are numbers, strings, times and
// what else holds no pointers, pgtype.Numeric, pointers to the language's own types and to times, and, of all that, slices which
// have no type name of their own, map[string]any, pgx.NamedArgs and pgx.StrictNamedArgs. Other maps are not.
func Hedge(delay time.Duration) ReadOption {
	return func(s *readSettings) { s.special, s.hedged, s.delay = true, true, max(0, delay) }
}

// hedges is what all reads of a DB with Hedge share.
type hedges struct {
	usual  atomic.Int64 // ns within which 95 of 100 recent reads were answered; 0 before the first
	credit atomic.Int64 // hedgePart of it buy one second send
}

const (
	hedgePart  = 20 // one read of so many may be sent twice
	hedgeBurst = 10 // so many may be, one after the other, after a time without
)

func (h *hedges) earn() {
	if h.credit.Load() < hedgePart*hedgeBurst {
		h.credit.Add(1)
	}
}

func (h *hedges) spend() bool {
	for {
		credit := h.credit.Load()
		if credit < hedgePart {
			return false
		}
		if h.credit.CompareAndSwap(credit, credit-hedgePart) {
			return true
		}
	}
}

// heed learns from the first node, after took, when its answer is there or is known to take longer than usual. Of others it is
// not known how long they would have taken.
func (h *hedges) heed(first *leg, took time.Duration) {
	if over := first.over(); over && first.answered() || !over && int64(took) > h.usual.Load() {
		h.learn(took)
	}
}

// learn moves the 95th percentile towards took. Steps up are 19 times as long as steps down, so it rests where one of twenty
// reads takes longer.
func (h *hedges) learn(took time.Duration) {
	usual := h.usual.Load()
	switch {
	case usual == 0:
		usual = int64(took)
	case int64(took) > usual:
		usual += usual / 5
	default:
		usual -= usual / 95
	}
	h.usual.Store(max(minLatency, usual)) // a lost update of two at once costs one sample
}

// hedgeOutcome is what became of a read that was not answered in time. It is a label of db_hedged_reads_total.
type hedgeOutcome uint8

const (
	hedgeWon        hedgeOutcome = iota // the second node answered first
	hedgeLost                           // the first did, after all
	hedgeOverBudget                     // it was not sent twice: too many were
	hedgeNoNode                         // nor was it: no other node qualified, or had a connection to spare by then
	hedgeFailed                         // it was, and both nodes failed; what the server says of the statement is an answer
	hedgeOutcomes
)

func (o hedgeOutcome) String() string {
	return [...]string{"won", "lost", "over-budget", "no-node", "failed"}[o]
}

// hedge is Query with Hedge, for arguments that stay as they are. Once a node has failed the read, it goes on without.
func (r *Reader) hedge(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	r.db.hedges.earn()
	var a attempt
	for {
		first := r.newLeg(ctx, 0)
		if err := first.lead(ctx, &a); err != nil {
			first.end()
			return errRows{err: err}, err
		}
		go first.run(nil, sql, args)
		var second *leg
		late := r.late(first, a.not != 0)
		if late && r.db.hedges.spend() {
			second = r.newLeg(ctx, becauseHedge)
			go second.run(&attempt{not: 1 << first.lease.node.index}, sql, args)
		}
		won := race(ctx, first, second)
		r.db.hedges.heed(first, r.db.now()-first.lease.begun)
		if won == second && first.over() { // it may have failed, and counts as a try then
			a.again(ctx, &first.lease, first.err)
		}
		switch {
		case second != nil:
			r.db.hedgeEnds(ctx, first, second, won)
		case late:
			r.db.hedgeCounts(ctx, won, hedgeOverBudget)
		}
		rows, again, err := won.answer(r, ctx, &a)
		if !again {
			return rows, err
		}
	}
}

// late waits for the first answer, and reports whether the time has come for a second node. A read that was repeated has had
// one already.
func (r *Reader) late(first *leg, repeated bool) bool {
	delay := r.s.delay
	if delay == 0 {
		delay = time.Duration(r.db.hedges.usual.Load())
	}
	if repeated || delay == 0 {
		<-first.done
		return false
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-first.done:
		return false
	case <-timer.C:
		return true
	}
}

// race waits until it is known which answer counts. An error of the second node does not while the first may still answer:
// hedging makes no read fail.
func race(ctx context.Context, first, second *leg) *leg {
	if second == nil {
		<-first.done
		return first
	}
	select {
	case <-first.done:
	case <-second.done:
		if second.answered() {
			return second
		}
		<-first.done
	}
	if !first.unanswered(ctx) {
		return first
	}
	<-second.done
	if second.held {
		return second
	}
	return first
}

// hedgeCounts counts what became of a read that was not answered in time, unless its caller has gone.
func (db *DB) hedgeCounts(ctx context.Context, won *leg, outcome hedgeOutcome) {
	if won.answered() || ctx.Err() == nil {
		db.in.hedged[outcome].Inc()
	}
}

// hedgeEnds counts what became of a read for which a second node was looked for, and ends what lost.
func (db *DB) hedgeEnds(ctx context.Context, first, second, won *leg) {
	outcome, lost := hedgeLost, second
	if won == second {
		lost = first
	}
	switch held := lost.lose(); {
	case !held:
		outcome = hedgeNoNode
	case won.unanswered(ctx):
		outcome = hedgeFailed
	case won == second:
		outcome = hedgeWon
		first.lease.node.load.answer(first.lease.begun, db.now()) // it has taken as long as that at least
	}
	db.hedgeCounts(ctx, won, outcome)
	if !db.background.run(lost.leave) {
		lost.leave(db.background.ctx)
	}
}
