package dbsplit

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// node is one server, whatever role it has at the moment.
type node struct {
	endpoint
	index  int
	reads  atomic.Pointer[pool] // its sessions are read-only, so a promoted replica takes no writes from readers
	writes atomic.Pointer[pool] // set while this node is the writer
	load   load
	lines  lines
	prompt chan struct{} // asks the monitor for a probe now
	served [2][reasons]atomic.Pointer[prometheus.Counter]
}

// pool is a pgxpool.Pool with the tracer that watches it.
type pool struct {
	*pgxpool.Pool
	tracer *tracer
}

// served counts a read, without a look-up by label values on the way.
func (db *DB) served(n *node, onReplica bool, because reason) {
	r, label := 0, rolePrimary.String()
	if onReplica {
		r, label = 1, roleReplica.String()
	}
	slot := &n.served[r][because]
	c := slot.Load()
	if c == nil {
		counter := db.in.reads.WithLabelValues(db.opts.Name, n.name, label, because.String())
		c = &counter
		slot.Store(c)
	}
	(*c).Inc()
}

// wake asks the monitor to probe n now.
func (db *DB) wake(n *node) {
	select {
	case n.prompt <- struct{}{}:
	default:
	}
}

// fail notes that a read lost its connection to n, so that the next reads avoid it until a probe succeeds.
func (db *DB) fail(n *node) {
	n.load.suspect.Store(true)
	db.wake(n)
}

// acquireWrite takes a connection from the writer's pool, wherever the writer and its pool are by now, and returns its
// node with it. A process that has just been started first looks at all nodes: its configuration may name a primary
// that lives on beside its promoted successor.
func (db *DB) acquireWrite(ctx context.Context) (*pgxpool.Conn, *node, error) {
	if s := db.snap.Load(); s != nil && !s.settled {
		if _, err := db.settle(ctx, s); err != nil {
			return nil, nil, err
		}
	}
	for {
		n := db.writer.Load()
		p := n.writes.Load()
		if p == nil {
			continue // the writer has just moved
		}
		c, err := p.Acquire(ctx)
		if err == nil {
			if db.writer.Load() == n {
				return c, n, nil
			}
			c.Release()
			continue
		}
		if db.closed.Load() {
			return nil, nil, ErrClosed
		}
		if db.writer.Load() == n && n.writes.Load() == p {
			return nil, nil, err
		}
	}
}

// acquireRead takes a read-only connection to n.
func (db *DB) acquireRead(ctx context.Context, n *node) (*pgxpool.Conn, error) {
	for {
		p := n.reads.Load()
		c, err := p.Acquire(ctx)
		if err == nil {
			return c, nil
		}
		if db.closed.Load() {
			return nil, ErrClosed
		}
		if n.reads.Load() == p {
			return nil, err
		}
	}
}

func (db *DB) now() time.Duration { return time.Since(db.opened) }
