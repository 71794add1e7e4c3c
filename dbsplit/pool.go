package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	defaultConnectTimeout = 2 * time.Second
	// pingTimeout bounds the check of an idle connection, which pgxpool would let hang in Acquire.
	pingTimeout = time.Second
	// idleAfter is when a connection counts as idle, shortly before pgxpool checks it.
	idleAfter = 900 * time.Millisecond
)

// configure adapts what the connection string says to the options, once for each node.
func (o *Options) configure(c *pgxpool.Config) {
	if o.MaxConns > 0 {
		c.MaxConns = o.MaxConns
	}
	if o.MinConns > 0 {
		c.MinConns = o.MinConns
	}
	switch {
	case o.ConnectTimeout > 0:
		c.ConnConfig.ConnectTimeout = o.ConnectTimeout
	case c.ConnConfig.ConnectTimeout <= 0:
		c.ConnConfig.ConnectTimeout = defaultConnectTimeout
	}
	if c.PingTimeout <= 0 {
		c.PingTimeout = pingTimeout
	}
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = o.Name
	}
}

// primaryReads is the size of the pool that shields the primary from readers.
func (db *DB) primaryReads() int32 {
	maxConns := db.maxConns.Load()
	switch {
	case db.opts.PrimaryReadConns > 0:
		return db.inProportion(db.opts.PrimaryReadConns)
	case len(db.members()) == 1:
		return maxConns
	default:
		return max(2, (maxConns+1)/2)
	}
}

// inProportion is what has become of a size as it was at Open.
func (db *DB) inProportion(size int32) int32 {
	now, then := int64(db.maxConns.Load()), int64(db.openedConns)
	return int32(min(max(1, (int64(size)*now+then/2)/then), math.MaxInt32))
}

// newPool starts a pool. It connects when it is used, and in the background for MinConns.
func (db *DB) newPool(n *node, role string, maxConns int32) (*pool, error) {
	writes := role == poolPrimary
	c := n.config.Copy()
	c.MaxConns = maxConns
	c.MinConns = min(c.MinConns, maxConns)
	t := &tracer{db: db, writes: writes, door: door{slow: c.ConnConfig.ConnectTimeout / 4}}
	c.BeforeConnect = func(ctx context.Context, _ *pgx.ConnConfig) error { return t.door.enter(ctx) }
	if own := db.opts.Tracer; own != nil {
		c.ConnConfig.Tracer = multitracer.New(t, own)
	} else {
		c.ConnConfig.Tracer = t
	}
	c.ConnConfig.DialFunc = n.lines.dialer(c.ConnConfig.DialFunc, c.ConnConfig.ConnectTimeout, db.opened)
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		newConnState(conn, db.now())
		if db.opts.AfterConnect != nil {
			return db.opts.AfterConnect(ctx, conn)
		}
		return nil
	}
	if writes {
		n.refuseStandbys(c)
	} else {
		n.repeatable(c)
		n.readOnly(c)
		c.ConnConfig.RuntimeParams["application_name"] += readsSuffix
	}
	p, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return nil, fmt.Errorf("dbsplit: pool for %s: %w", n.name, err)
	}
	open, closes := context.WithCancel(context.Background())
	return &pool{Pool: p, tracer: t, acquire: db.in.acquire.WithLabelValues(db.opts.Name, role), most: int64(maxConns), open: open, close: closes}, nil
}

// refuseStandbys keeps the writing pool off servers in recovery. Servers since PostgreSQL 14 report the fact by
// themselves, so asking costs nothing; without it a pool stays pinned to a demoted server for as long as
// that answers.
func (n *node) refuseStandbys(c *pgxpool.Config) {
	validateAlso(c, func(conn *pgconn.PgConn) error {
		if n.inRecovery(conn) {
			return ErrNotPrimary
		}
		return nil
	})
	c.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) {
		st := stateOf(conn)
		return (st == nil || !st.doomed) && !n.inRecovery(conn.PgConn()), nil
	}
}

func inRecovery(conn *pgconn.PgConn) bool { return conn.ParameterStatus("in_hot_standby") == "on" }

// Resize changes, while in use, the most connections of the writing pool to maxConns, and those of all other pools in the
// same proportion to what they were at Open, rounded, at least 1: each replica's, whether or not it was given
// Options.ReplicaConns, and Options.PrimaryReadConns. So with the same size for all it is maxConns for each replica, too. It
// counts for this process only. Statements under way keep their old connections; until they end, the old and the new pool
// together may hold more than either.
func (db *DB) Resize(ctx context.Context, maxConns int32) error {
	if maxConns < 1 {
		return fmt.Errorf("dbsplit: Resize to %d, want 1 or more connections", maxConns)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	db.resize.Lock()
	defer db.resize.Unlock()
	if db.closed.Load() {
		return ErrClosed
	}
	var errs []error
	db.maxConns.Store(maxConns)
	writer := db.writer.Load()
	for _, n := range db.members() {
		if n == writer {
			errs = append(errs, db.replaceWrites(n, maxConns))
		}
		errs = append(errs, db.replaceReads(n, n == writer))
	}
	db.samplePools()
	db.opts.Logger.Info("dbsplit: pools resized", "db", db.opts.Name, "max", maxConns)
	return errors.Join(errs...)
}

// replaceWrites gives n a new pool for writes. db.resize is held.
func (db *DB) replaceWrites(n *node, maxConns int32) error {
	p, err := db.newPool(n, poolPrimary, maxConns)
	if err == nil {
		db.writing.enter(p)
		db.retire(n.writes.Swap(p))
	}
	return err
}

// replaceReads gives n a new pool for reads, of the size that its role asks for. db.resize is held.
func (db *DB) replaceReads(n *node, writer bool) error {
	role := poolReplica
	if writer {
		role = poolPrimaryReads
	}
	p, err := db.newPool(n, role, db.readConns(n, writer))
	if err == nil {
		db.retire(n.reads.Swap(p))
	}
	return err
}

// retire closes a pool when its last connection is given back, and sends those away at once who wait for one.
func (db *DB) retire(p *pool) {
	if p != nil {
		p.close()
		db.retired.Go(func() {
			p.Close()
			db.writing.leave(p)
		})
	}
}
