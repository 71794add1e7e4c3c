package dbsplit

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errSilent is what those get who wait for an answer of a node that the monitor has given up, or for a connection to it.
var errSilent = errors.New("dbsplit: the node answers neither its connections nor the monitor, so they were closed")

// lines are the open connections of one node's pools, below pgx: closing one there ends whatever waits for it, at no
// cost to the statements that go well.
type lines struct {
	mu   sync.Mutex
	open map[*line]struct{}
}

// line is one connection.
type line struct {
	net.Conn
	lines *lines
	since time.Time    // the clock of heard
	heard atomic.Int64 // when the node was last heard of, in ns
	ended atomic.Bool  // for its silence
}

// dialer makes dial's connections lines of ls. timeout bounds what pgx does not: to have a server cancel the statement of a connection
// that is closed, it dials for up to 15 seconds, and the connection keeps its place in the pool meanwhile. Then pgx waits, for the rest
// of them, until the server closes the connection; where the server cannot, end does so.
func (ls *lines) dialer(dial pgconn.DialFunc, timeout time.Duration, since time.Time) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conn, err := dial(bounded, network, addr)
		if err != nil {
			return nil, err
		}
		l := &line{Conn: conn, lines: ls, since: since}
		l.heard.Store(int64(time.Since(since)))
		ls.mu.Lock()
		defer ls.mu.Unlock()
		if ls.open == nil {
			ls.open = make(map[*line]struct{})
		}
		ls.open[l] = struct{}{}
		return l, nil
	}
}

// end closes the lines on which nothing came since then.
func (ls *lines) end(then time.Duration) (n int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.open {
		if l.heard.Load() < int64(then) {
			l.ended.Store(true)
			_ = l.Conn.Close() // whoever waits for it learns
			delete(ls.open, l)
			n++
		}
	}
	return n
}

// heard reports whether anything came on any of them since then.
func (ls *lines) heard(then time.Duration) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.open {
		if l.heard.Load() >= int64(then) {
			return true
		}
	}
	return false
}

func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.heard.Store(int64(time.Since(l.since)))
	}
	return n, l.explain(err)
}

func (l *line) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	return n, l.explain(err)
}

func (l *line) explain(err error) error {
	if err != nil && l.ended.Load() {
		return errSilent
	}
	return err
}

func (l *line) Close() error {
	l.lines.mu.Lock()
	delete(l.lines.open, l)
	l.lines.mu.Unlock()
	return l.Conn.Close()
}

// dismiss sends those away who wait for a connection to read from n, which has fallen silent: each that they would open in
// their turn would be waited for in vain. They learn it as their pool is replaced.
func (db *DB) dismiss(n *node) {
	db.resize.Lock()
	defer db.resize.Unlock()
	if db.closed.Load() || (*db.places.Load())[n.index] != n {
		return
	}
	if err := db.replaceReads(n, n == db.writer.Load()); err != nil {
		db.in.failed("failover")
		db.opts.Logger.Error("dbsplit: cannot replace the pool of a silent node, reads may wait for it", "db", db.opts.Name, "node", n.name, "error", err)
	}
}

// gaveUp reports whether the monitor has heard nothing of n at its last look.
func (db *DB) gaveUp(n *node) bool {
	s := db.snap.Load()
	return s != nil && n.index < len(s.nodes) && s.nodes[n.index] == n && s.views[n.index].probed && !s.views[n.index].up
}

// cut reports whether conn cannot send any more.
func cut(conn *pgx.Conn) bool {
	if conn.IsClosed() {
		return true
	}
	below := conn.PgConn().Conn()
	if secure, ok := below.(interface{ NetConn() net.Conn }); ok {
		below = secure.NetConn()
	}
	l, ok := below.(*line)
	return ok && l.ended.Load()
}
