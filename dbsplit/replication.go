package dbsplit

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// ReplicationReport is what this process knows of the cluster, and what the primary says of its receivers.
type ReplicationReport struct {
	// Nodes are the nodes as routing sees them.
	Nodes []NodeStatus `json:"nodes"`
	// Streams are the primary's connections to standbys.
	Streams []Stream `json:"streams"`
	// Unavailable says why there are no streams.
	Unavailable string `json:"unavailable,omitempty"`
}

// Stream is a row of pg_stat_replication. Fields are empty without the privileges of pg_monitor.
type Stream struct {
	Application string `json:"application"`
	State       string `json:"state"`
	Sync        string `json:"sync"`
	// BehindBytes is how much of the log the standby has yet to replay; -1 when it may not be seen.
	BehindBytes int64 `json:"behind_bytes"`
}

// Replication reports on nodes and streams.
func (db *DB) Replication(ctx context.Context) (*ReplicationReport, error) {
	report := &ReplicationReport{Nodes: db.Nodes(), Streams: []Stream{}}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	conn, err := db.acquireRead(ctx, db.writer.Load())
	if err == nil {
		defer conn.Release()
		var rows pgx.Rows
		rows, err = conn.Query(ctx, `-- name: dbsplit_streams
select coalesce(application_name, ''), coalesce(state, ''), coalesce(sync_state, ''),
	coalesce((pg_current_wal_insert_lsn() - replay_lsn)::bigint, -1)
from pg_stat_replication order by 1`)
		if err == nil {
			report.Streams, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Stream])
		}
	}
	if err != nil {
		report.Streams = []Stream{}
		report.Unavailable = "the primary does not answer: see this service's log"
		db.opts.Logger.Warn("dbsplit: replication status", "db", db.opts.Name, "error", err)
	}
	return report, nil
}
