package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Discovery returns the connection strings of the replicas that there are now. db is there to be asked; do not close it.
type Discovery func(ctx context.Context, db *DB) ([]string, error)

// FromDNS takes every address that the host of a connection string resolves to for a replica, as headless services and
// many managed databases publish them. An address of the primary among them is recognised and left alone.
func FromDNS(connString string) Discovery {
	return func(ctx context.Context, _ *DB) ([]string, error) {
		e, err := parseDSN(connString)
		if err != nil {
			return nil, fmt.Errorf("dbsplit: FromDNS: the connection string %w", err)
		}
		c := e.config.ConnConfig
		addrs, err := c.LookupFunc(ctx, c.Host)
		if err != nil {
			return nil, fmt.Errorf("dbsplit: FromDNS: %w", err)
		}
		all := make([]string, len(addrs))
		for i, addr := range addrs {
			all[i] = withParameter(connString, "node_addr", addr)
		}
		return all, nil
	}
}

// withParameter adds a parameter to a connection string. Neither needs escaping.
func withParameter(connString, name, value string) string {
	switch {
	case !strings.HasPrefix(connString, "postgres://") && !strings.HasPrefix(connString, "postgresql://"):
		return connString + " " + name + "=" + value
	case strings.Contains(connString, "?"):
		return connString + "&" + name + "=" + value
	default:
		return connString + "?" + name + "=" + value
	}
}

// Standby is one that streams from the primary, as pg_stat_replication has it.
type Standby struct {
	// Application is the application_name in its primary_conninfo, cluster_name, or "walreceiver".
	Application string
	// Addr is the IP address that it connects from; empty for a socket.
	Addr string
	// Hostname is that address's name, if the primary has log_hostname on.
	Hostname string
}

// FromStandbys asks the primary which standbys stream from it, and connString for the connection string of each. It returns
// the empty string for those that are to be left out. This role must be a member of pg_monitor.
func FromStandbys(connString func(Standby) string) Discovery {
	return func(ctx context.Context, db *DB) ([]string, error) {
		conn, err := db.acquireRead(ctx, db.writer.Load())
		if err != nil {
			return nil, fmt.Errorf("dbsplit: FromStandbys: %w", err)
		}
		defer conn.Release()
		rows, err := conn.Query(ctx, `-- name: dbsplit_standbys
select coalesce(application_name, ''), coalesce(host(client_addr), ''), coalesce(client_hostname, ''), coalesce(state, '')
from pg_stat_replication order by 1, 2`)
		if err != nil {
			return nil, fmt.Errorf("dbsplit: FromStandbys: %w", err)
		}
		all := []string{}
		var s Standby
		var state string
		hidden := false
		_, err = pgx.ForEachRow(rows, []any{&s.Application, &s.Addr, &s.Hostname, &state}, func() error {
			hidden = hidden || state == ""
			if state != "streaming" {
				return nil // pg_basebackup, or one that does not keep up yet
			}
			if text := connString(s); text != "" {
				all = append(all, text)
			}
			return nil
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("dbsplit: FromStandbys: %w", err)
		case hidden:
			return nil, errors.New("dbsplit: FromStandbys: this role may not see the standbys, grant it pg_monitor")
		}
		return all, nil
	}
}

// missesToRemove is how often in a row a replica must be missing from what Discover says before it is taken out.
const missesToRemove = 3

// discover keeps the discovered nodes up to date until ctx ends.
func (db *DB) discover(ctx context.Context) {
	if db.opts.Discover == nil {
		return
	}
	missed := make(map[string]int)
	for {
		if err := db.discoverOnce(ctx, missed); err != nil && ctx.Err() == nil {
			db.in.failed("discover")
			db.opts.Logger.Warn("dbsplit: discovery of replicas", "db", db.opts.Name, "error", err)
		}
		timer := time.NewTimer(db.opts.DiscoverInterval * time.Duration(90+rand.IntN(21)) / 100)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-db.moved:
			timer.Stop()
		}
	}
}

// discoverOnce adds and removes nodes. One bad connection string does not stop the others.
func (db *DB) discoverOnce(ctx context.Context, missed map[string]int) error {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	found, err := db.opts.Discover(ctx, db)
	if err != nil {
		return err
	}
	var errs []error
	named := make(map[string]bool)
	for i, connString := range found {
		e, err := parseDSN(connString)
		if err != nil {
			errs = append(errs, fmt.Errorf("dbsplit: connection string number %d %w", i, err))
			continue
		}
		named[e.name] = true
		if db.lookUp(e.name) == nil {
			errs = append(errs, db.add(e, true))
		}
	}
	for _, n := range db.members() {
		switch {
		case !n.discovered || named[n.name] || n == db.writer.Load():
			delete(missed, n.name)
		default:
			if missed[n.name]++; missed[n.name] >= missesToRemove {
				delete(missed, n.name)
				errs = append(errs, db.RemoveReplica(n.name))
			}
		}
	}
	return errors.Join(errs...)
}
