package dbsplit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
)

// lack is something that this role may not do on a server, and what that costs.
type lack string

const (
	lackMonitor lack = "pg_monitor: without it the timeline of a replica comes late, and the primary's streams and other roles' sessions stay hidden"
	lackCancel  lack = "pg_signal_backend: without it statements of other roles cannot be cancelled"
	lackHistory lack = "EXECUTE on pg_read_file(text, bigint, bigint, boolean): without it writes lost in a promotion that this process has not seen go unnoticed"
)

// lacks are what a role may not do on one server. The zero value is nothing.
type lacks struct{ all atomic.Pointer[[]lack] }

func (l *lacks) list() []lack {
	if all := l.all.Load(); all != nil {
		return *all
	}
	return nil
}

func (l *lacks) has(one lack) bool { return slices.Contains(l.list(), one) }

// greet asks a server once on each connection of the monitor who it is and what this role may not do there. Nothing that
// it may not do is needed for routing.
func (db *DB) greet(ctx context.Context, n *node, conn *pgx.Conn) error {
	const sql = `-- name: dbsplit_greet
select pg_postmaster_start_time(), current_setting('port')::int, (select system_identifier from pg_control_system()),
	pg_has_role('pg_monitor', 'USAGE'), pg_has_role('pg_signal_backend', 'USAGE'),
	has_function_privilege('pg_read_file(text, bigint, bigint, boolean)', 'EXECUTE')`
	var (
		started                  time.Time
		port                     int
		system                   int64
		monitor, cancel, history bool
	)
	if err := n.asks(conn).QueryRow(ctx, sql).Scan(&started, &port, &system, &monitor, &cancel, &history); err != nil {
		return fmt.Errorf("dbsplit: greeting: %w", err)
	}
	n.identity.Store(&identity{started.UnixMicro(), port, system})
	var missing []lack
	for _, l := range []struct {
		granted bool
		lack    lack
	}{{monitor, lackMonitor}, {cancel, lackCancel}, {history, lackHistory}} {
		if !l.granted {
			missing = append(missing, l.lack)
		}
	}
	if old := n.lacking.all.Swap(&missing); len(missing) > 0 && (old == nil || !slices.Equal(*old, missing)) {
		db.opts.Logger.Warn("dbsplit: this role lacks privileges, which costs some features", "db", db.opts.Name, "node", n.name, "lacks", missing)
	}
	return nil
}

// identity tells servers apart, by whichever of their addresses they are reached: two of one cluster that listen on the same
// port, on different machines, do not start in one microsecond.
type identity struct {
	started int64
	port    int
	system  int64
}

// markTwins finds the nodes that reach the same server as the writer, or as one before them. monitor.mu is held.
func (m *monitor) markTwins(places []*node, writer *node) {
	known := make(map[identity]bool, len(places))
	if id := writer.identity.Load(); id != nil && m.nodes[writer.index].up {
		known[*id] = true
	}
	for i, n := range places {
		m.nodes[i].twin = false
		if n == nil || n == writer || !m.nodes[i].up {
			continue
		}
		if id := n.identity.Load(); id != nil {
			m.nodes[i].twin = known[*id]
			known[*id] = true
		}
	}
}

// serverVersion returns the major version that a server has reported, or 0.
func serverVersion(conn *pgx.Conn) int {
	text := conn.PgConn().ParameterStatus("server_version")
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(text)
	}
	major, _ := strconv.Atoi(text[:end]) // what is no number has no features
	return major
}

// waitsForLSN reports whether a server can wait for a position by itself.
func waitsForLSN(conn *pgx.Conn) bool { return serverVersion(conn) >= 19 }

// waitForLSN waits on a replica until it has replayed what a read waits for, at most as long as until the next probe
// would have been sent. Whether it was reached the probe that follows tells: WAIT FOR does not look at timelines.
func (db *DB) waitForLSN(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	sql := fmt.Sprintf("WAIT FOR LSN '%s' WITH (MODE 'standby_replay', TIMEOUT '8ms', NO_THROW)", scaleaware.LSN(db.wanted.Load()))
	_, _ = conn.Exec(ctx, sql) // a connection that is lost shows in the probe
}
