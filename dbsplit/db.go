package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// DB is a PostgreSQL primary with its replicas. It has the methods of *pgxpool.Pool, all on the primary, except that
// transactions opened with pgx.ReadOnly go to a replica; Read gives the handle for replicas. It is safe for
// concurrent use.
type DB struct {
	opts   Options
	in     *instruments
	opened time.Time
	reader Reader // what Read returns when it is given no option
	// openedConns is what maxConns was at Open.
	openedConns int32

	places   atomic.Pointer[[]*node] // by node.index, nil where one was removed; replaced as a whole, under resize
	writer   atomic.Pointer[node]
	maxConns atomic.Int32              // of the writing pool
	snap     atomic.Pointer[snapshot]  // nil while Run is not running
	system   atomic.Uint64             // the cluster's identifier, 0 before it is known
	latest   atomic.Pointer[sighting]  // the highest position of the primary that was seen
	history  atomic.Pointer[timelines] // where earlier timelines ended, as far as it is known
	waiters  atomic.Int64              // reads that wait for a replica to catch up
	running  atomic.Bool
	closed   atomic.Bool
	wanted   atomic.Uint64 // the position that the latest of them waits for
	behind   atomic.Int64  // when a read last found all replicas behind, in ns since opened
	orphans  atomic.Int64  // writes, and reads, that wait for a primary
	doubted  atomic.Int64  // when a write was last refused as read-only, in ns since the DB was opened; 0 once the writer was found to take them, or all nodes were looked at
	joined   chan struct{} // a node was added
	moved    chan struct{} // another node is the writer

	resize  sync.Mutex // serialises replacing pools and places
	retired sync.WaitGroup
	writing writing

	hedges     hedges
	shadows    atomic.Int32 // reads being compared
	background background
	monitor    monitor
	told       toldTokens
	statements statementHistory
	sizes      sizeHistory
}

// Open makes a DB of one cluster's servers. It connects when it is used and to keep MinConns open, so it succeeds
// while servers are down; only mistakes in nodes and opts are errors, all of them joined. Nil opts are legal.
//
// Close it, after Run has returned. Without Run it is correct, but all reads go to the primary.
func Open(ctx context.Context, nodes Nodes, opts *Options) (*DB, error) {
	o := opts.withDefaults()
	endpoints, err := nodes.parse()
	if len(nodes.Replicas)+1 > maxNodes {
		err = errors.Join(err, fmt.Errorf("dbsplit: Nodes names %d servers, want at most %d", len(nodes.Replicas)+1, maxNodes))
	}
	if err := errors.Join(err, o.validate(), ctx.Err()); err != nil {
		return nil, err
	}
	in, err := newInstruments(o.Name, o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("dbsplit: Options.Registerer: %w", err)
	}
	db := &DB{opts: o, in: in, opened: time.Now(), joined: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	db.background.open()
	db.reader = Reader{db: db, s: db.defaultRead()}
	places := make([]*node, len(endpoints))
	for i, e := range endpoints {
		o.configure(e.config)
		places[i] = db.newNode(e, i)
		db.occupy(places, i, standing{})
	}
	primary := places[0]
	db.writer.Store(primary)
	db.openedConns = primary.config.MaxConns
	db.maxConns.Store(db.openedConns)
	if err := db.openPools(); err != nil {
		db.Close()
		return nil, err
	}
	db.samplePools()
	return db, nil
}

func (db *DB) openPools() error {
	db.resize.Lock()
	defer db.resize.Unlock()
	primary := db.writer.Load()
	errs := []error{db.replaceWrites(primary, primary.config.MaxConns)}
	for _, n := range db.members() {
		errs = append(errs, db.replaceReads(n, n == primary))
	}
	return errors.Join(errs...)
}

// Close closes all pools and waits until every connection has been given back, as pgxpool's Close does.
func (db *DB) Close() {
	db.closed.Store(true)
	db.background.close()
	db.resize.Lock()
	defer db.resize.Unlock()
	for _, n := range db.members() {
		db.retire(n.reads.Load())
		db.retire(n.writes.Load())
	}
	db.retired.Wait()
}

// Ready returns nil when writes have a primary to go to. Replicas that are down do not make it fail: Nodes tells
// of them. While Run is running it says what the monitor found: a primary that refuses the monitor alone may take writes, and is
// not ready all the same, as nobody would see it fail.
func (db *DB) Ready(ctx context.Context) error {
	if db.closed.Load() {
		return ErrClosed
	}
	if err := db.divided(); err != nil {
		return err
	}
	if s := db.snap.Load(); s != nil {
		if err := s.nodes[s.writer].barred(); err != nil {
			return err
		}
		v := s.views[s.writer]
		if v.up && v.role == rolePrimary {
			return nil
		}
		switch n := s.nodes[s.writer]; {
		case v.objection != "":
			return fmt.Errorf("dbsplit: primary %s: %s: %w", n.name, v.advice(true), db.monitor.reason(n.index))
		case v.probed:
			return db.unwritable(n, "")
		}
	}
	if err := db.Ping(ctx); err != nil {
		return fmt.Errorf("dbsplit: primary %s does not answer, bring it up or promote a replica: %w", db.writer.Load().name, err)
	}
	return nil
}
