package dbsplit

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Run watches the nodes, each over a connection of its own, until ctx ends: their roles, positions and staleness. Reads
// go to replicas while it runs. It returns nil when ctx ends, and an error only when it runs already.
func (db *DB) Run(ctx context.Context) error {
	if !db.running.CompareAndSwap(false, true) {
		return errors.New("dbsplit: Run is running already, call it once for each DB")
	}
	db.resize.Lock()
	db.monitor.forget(*db.places.Load())
	db.publish()
	db.resize.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { db.watchAll(ctx, g); return nil })
	g.Go(func() error { db.measure(ctx); return nil })
	g.Go(func() error { db.discover(ctx); return nil })
	err := g.Wait()
	db.resize.Lock() // whoever removes a replica publishes, too
	defer db.resize.Unlock()
	db.running.Store(false)
	if last := db.snap.Swap(nil); last != nil {
		close(last.next)
	}
	return err
}

// watchAll watches the nodes that there are and those that are added.
func (db *DB) watchAll(ctx context.Context, g *errgroup.Group) {
	watched := make(map[*node]bool)
	for ctx.Err() == nil {
		present := make(map[*node]bool)
		for _, n := range db.members() {
			present[n] = true
			if !watched[n] {
				g.Go(func() error { db.watch(ctx, n); return nil })
			}
		}
		watched = present
		select {
		case <-ctx.Done():
		case <-db.joined:
		}
	}
}

const (
	// orphanProbe is how often nodes are probed while writes wait for a primary, and behindProbe while reads find all
	// replicas behind their callers' writes.
	orphanProbe = 25 * time.Millisecond
	behindProbe = 50 * time.Millisecond
	// behindFor is how long a read that found all replicas behind makes the monitor look more often.
	behindFor = 500 * time.Millisecond
)

// watch probes n until ctx ends or n is removed. Its connection is its own, so that a pool whose connections are all in
// use cannot blind it.
func (db *DB) watch(ctx context.Context, n *node) {
	var conn *pgx.Conn
	defer func() { hangUp(conn) }()
	quick := time.Duration(0)
	for {
		sent := time.Now()
		p, err := db.probeNode(ctx, n, &conn)
		if ctx.Err() != nil {
			return
		}
		db.observe(n, sent, p, err)
		if err == nil && !p.recovering {
			db.learnHistory(ctx, n, p.at)
		}
		wait := db.opts.ProbeInterval * time.Duration(90+rand.IntN(21)) / 100
		if db.waiters.Load() > 0 && err == nil {
			quick = min(max(2*time.Millisecond, 2*quick), 8*time.Millisecond)
			wait = min(wait, quick)
			if p.recovering && waitsForLSN(conn) {
				db.waitForLSN(ctx, conn)
				wait = 0
			}
		} else {
			quick = 0
		}
		switch {
		case db.orphans.Load() > 0:
			wait = min(wait, orphanProbe)
		case err == nil && db.now()-time.Duration(db.behind.Load()) < behindFor:
			wait = min(wait, behindProbe)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-n.gone:
			timer.Stop()
			return
		case <-timer.C:
		case <-n.prompt:
			timer.Stop()
		}
	}
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing can be done about it
}

// probeNode connects when it must. A connection that failed is not used again.
func (db *DB) probeNode(ctx context.Context, n *node, conn **pgx.Conn) (position, error) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	if *conn == nil {
		c := n.config.ConnConfig.Copy()
		c.RuntimeParams["application_name"] = db.monitorName()
		c.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statement: works through a pooler as well
		opened, err := pgx.ConnectConfig(ctx, c)
		if err != nil {
			return position{}, n.explainConnect(err)
		}
		*conn = opened
		err = db.lookForPooler(ctx, n, opened)
		if err == nil {
			err = db.greet(ctx, n, opened)
		}
		if err != nil {
			hangUp(opened)
			*conn = nil
			return position{}, err
		}
	}
	db.lookAgain(ctx, n, *conn)
	p, err := n.probe(ctx, *conn)
	n.refuses.Store(err == nil && !p.recovering && p.refuses)
	if err != nil {
		hangUp(*conn)
		*conn = nil
	}
	return p, err
}

// monitorName names the monitor's sessions. There is one for each process and node, so they count the fleet.
func (db *DB) monitorName() string { return db.opts.Name + " monitor" }
