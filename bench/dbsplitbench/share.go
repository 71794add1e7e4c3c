package dbsplitbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/dbsplit"
)

const (
	lag         = 50 * time.Millisecond
	sticky      = 2 * time.Second
	writesTotal = 100 // a second
	readsTotal  = 500 // a second
)

const shareNote = "Both replicas replay 50 ms late. The sessions together write 100 times a second and read 500 times a second, at random moments; " +
	"each read must see its session's writes. Peer is computed on the same history: reads go to the primary for 2 s after a write of their session."

func (l *lab) share(ctx context.Context) (rows []report.Row, err error) {
	c, err := l.servers(ctx)
	if err != nil {
		return nil, err
	}
	for i := range 2 {
		if err := c.Replica(i).SetApplyDelay(ctx, lag); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.Replica(i).SetApplyDelay(ctx, 0)) }()
	}
	for _, s := range []struct {
		sessions int
		wait     time.Duration
	}{{1, 0}, {10, 0}, {20, 0}, {100, 0}, {1, 200 * time.Millisecond}, {20, 200 * time.Millisecond}} {
		db, stop, err := openSplit(ctx, &dbsplit.Options{WaitForReplica: s.wait}, c.Primary().Addr(), c.Replica(0).Addr(), c.Replica(1).Addr())
		if err != nil {
			return nil, err
		}
		h, err := busy(ctx, db, s.sessions, l.opts.scaled(5*time.Second))
		stop()
		if err != nil {
			return nil, err
		}
		what := fmt.Sprintf("%d sessions, each writes %s times a second", s.sessions, report.Count(writesTotal/float64(s.sessions)))
		if s.wait > 0 {
			what += fmt.Sprintf(", reads wait up to %v", s.wait)
		}
		ours, peer := float64(h.onReplica)/float64(h.reads), float64(h.unstuck)/float64(h.reads)
		rows = append(rows, report.Row{
			What: what, Goal: "≥ 60 %", Peer: report.Percent(peer),
			Ours: fmt.Sprintf("%s of %d reads, %d stale", report.Percent(ours), h.reads, h.stale),
			Met:  report.All(report.AtLeast(ours, 0.6), report.AtMost(float64(h.stale), 0)),
		})
	}
	return rows, nil
}

// history counts what reads got.
type history struct {
	reads, onReplica int
	unstuck          int // reads that a sticky session would have sent to a replica
	stale            int // reads that missed a write of their session: a broken promise
}

// busy runs sessions for a while.
func busy(ctx context.Context, db *dbsplit.DB, sessions int, d time.Duration) (history, error) {
	var mu sync.Mutex
	var all history
	var g errgroup.Group
	for range sessions {
		g.Go(func() error {
			h, err := session(ctx, db, d, writesTotal/float64(sessions), readsTotal/float64(sessions))
			mu.Lock()
			defer mu.Unlock()
			all.reads += h.reads
			all.onReplica += h.onReplica
			all.unstuck += h.unstuck
			all.stale += h.stale
			return err
		})
	}
	err := g.Wait()
	if err == nil && all.reads == 0 {
		err = fmt.Errorf("no read in %v", d)
	}
	return all, err
}

// session writes and reads at random moments, at the rates given. Its reads do not hold up its writes.
func session(ctx context.Context, db *dbsplit.DB, d time.Duration, writes, reads float64) (h history, err error) {
	ctx, _ = scaleaware.WithWatermark(ctx)
	var mu sync.Mutex
	var g errgroup.Group
	wrote := time.Now() // the session has begun with a write, as with a login
	var id, written int64
	if err := db.QueryRow(ctx, "insert into notes (n) values (0) returning id").Scan(&id); err != nil {
		return h, err
	}
	end := wrote.Add(d)
	at := wrote
	for {
		at = at.Add(time.Duration(rand.ExpFloat64() / (writes + reads) * float64(time.Second)))
		if at.After(end) {
			break
		}
		time.Sleep(time.Until(at))
		if rand.Float64()*(writes+reads) < writes {
			// One after the other: the next read of the session must see it.
			mu.Lock()
			wrote = time.Now()
			mu.Unlock()
			if _, err := db.Exec(ctx, "update notes set n = n + 1 where id = $1", id); err != nil {
				return h, errors.Join(err, g.Wait())
			}
			written++
			continue
		}
		mu.Lock()
		h.reads++
		if time.Since(wrote) > sticky {
			h.unstuck++
		}
		mu.Unlock()
		least := written
		g.Go(func() error {
			var seen int64
			var replica bool
			err := db.Read().QueryRow(ctx, "select n, pg_is_in_recovery() from notes where id = $1", id).Scan(&seen, &replica)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if replica {
				h.onReplica++
			}
			if seen < least {
				h.stale++
			}
			return nil
		})
	}
	err = g.Wait()
	return h, err
}
