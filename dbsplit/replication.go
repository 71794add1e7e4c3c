package dbsplit

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ReplicationReport is what this process knows of the cluster, and what the primary says of its receivers.
type ReplicationReport struct {
	// Nodes are the nodes as routing sees them.
	Nodes []NodeStatus `json:"nodes"`
	// Streams are the primary's connections to standbys.
	Streams []Stream `json:"streams"`
	// Slots are the primary's replication slots. Each keeps the log that its receiver has yet to fetch.
	Slots []Slot `json:"slots"`
	// Warnings say what is wrong, or may not be seen, and what to do.
	Warnings []string `json:"warnings,omitempty"`
	// Unavailable says why there are no streams.
	Unavailable string `json:"unavailable,omitempty"`
}

// Stream is a row of pg_stat_replication. What may not be seen without the privileges of pg_monitor is empty or -1.
type Stream struct {
	Application string `json:"application"`
	State       string `json:"state"`
	// Sync is async, potential, sync or quorum.
	Sync string `json:"sync"`
	// BehindBytes is how much of the log the standby has yet to replay; -1 when it may not be seen.
	BehindBytes int64 `json:"behind_bytes"`
	// SentLagBytes, WriteLagBytes and FlushLagBytes are how much of it has yet to be sent to the standby, written there, and
	// be safe there; -1 when it may not be seen.
	SentLagBytes  int64 `json:"sent_lag_bytes"`
	WriteLagBytes int64 `json:"write_lag_bytes"`
	FlushLagBytes int64 `json:"flush_lag_bytes"`
	// WriteLagSeconds, FlushLagSeconds and ReplayLagSeconds are how long it lately took until the standby had written, flushed
	// and replayed what was flushed here; -1 when it may not be seen, or nothing was sent lately: an idle standby has
	// no lag to measure.
	WriteLagSeconds  float64 `json:"write_lag_seconds"`
	FlushLagSeconds  float64 `json:"flush_lag_seconds"`
	ReplayLagSeconds float64 `json:"replay_lag_seconds"`
}

// Slot is a row of pg_replication_slots.
type Slot struct {
	Name string `json:"name"`
	// Kind is physical or logical.
	Kind string `json:"kind"`
	// Active is whether a receiver uses it now.
	Active bool `json:"active"`
	// Status is what has become of the log that it needs: reserved, extended, unreserved or lost; empty when it needs none yet.
	Status string `json:"status"`
	// RetainedBytes is how much of the log the server keeps for it; -1 when none.
	RetainedBytes int64 `json:"retained_bytes"`
	// Advice says what to do about it, if anything.
	Advice string `json:"advice,omitempty"`
}

// Replication reports on nodes, streams and slots. It needs no privilege, but says less without pg_monitor.
func (db *DB) Replication(ctx context.Context) (*ReplicationReport, error) {
	report := &ReplicationReport{Nodes: db.Nodes()}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	conn, leave, err := db.visit(ctx, db.writer.Load())
	if err == nil {
		defer leave()
		err = report.load(ctx, conn)
	}
	switch {
	case errors.Is(err, ErrNotPrimary):
		report.Unavailable = "the server that should be the primary is in recovery: wait for the failover to end, or promote it"
	case err != nil:
		report.Unavailable = trouble(err)
		db.opts.Logger.Warn("dbsplit: replication status", "db", db.opts.Name, "error", err)
	}
	if err != nil {
		report.Streams, report.Slots, report.Warnings = []Stream{}, []Slot{}, nil
	}
	return report, nil
}

func (r *ReplicationReport) load(ctx context.Context, q querier) error {
	p, err := probe(ctx, q)
	if err != nil {
		return err
	}
	if p.recovering {
		return ErrNotPrimary
	}
	// Lags are counted from the position that the probe rounds, as replicas' are.
	end := p.at.LSN.String()
	rows, err := q.Query(ctx, `-- name: dbsplit_streams
select coalesce(application_name, ''), coalesce(state, ''), coalesce(sync_state, ''),
	case when replay_lsn is null then -1 else greatest(0, $1::text::pg_lsn - replay_lsn)::bigint end, case when sent_lsn is null then -1 else greatest(0, $1::text::pg_lsn - sent_lsn)::bigint end,
	case when write_lsn is null then -1 else greatest(0, $1::text::pg_lsn - write_lsn)::bigint end, case when flush_lsn is null then -1 else greatest(0, $1::text::pg_lsn - flush_lsn)::bigint end,
	coalesce(extract(epoch from write_lag), -1)::float8, coalesce(extract(epoch from flush_lag), -1)::float8,
	coalesce(extract(epoch from replay_lag), -1)::float8
from pg_stat_replication order by 1, pid`, end)
	if err != nil {
		return err
	}
	if r.Streams, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Stream]); err != nil {
		return err
	}
	rows, err = q.Query(ctx, `-- name: dbsplit_slots
select slot_name, slot_type, active, coalesce(wal_status, ''), case when restart_lsn is null then -1 else greatest(0, $1::text::pg_lsn - restart_lsn)::bigint end, ''
from pg_replication_slots order by 1`, end)
	if err != nil {
		return err
	}
	if r.Slots, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Slot]); err != nil {
		return err
	}
	var sees bool
	if err := q.QueryRow(ctx, "-- name: dbsplit_sees_streams\nselect pg_has_role('pg_read_all_stats', 'USAGE')").Scan(&sees); err != nil {
		return err
	}
	r.warn(sees)
	return nil
}

func (r *ReplicationReport) warn(sees bool) {
	if !sees && len(r.Streams) > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("this role may not see the state and lag of the %d streams: GRANT pg_monitor to it", len(r.Streams)))
	}
	for i := range r.Slots {
		s := &r.Slots[i]
		if s.Advice = s.advice(); s.Advice != "" {
			r.Warnings = append(r.Warnings, "slot "+s.Name+": "+s.Advice)
		}
	}
}

func (s *Slot) advice() string {
	switch {
	case s.Status == "lost":
		return "the log that it needs is gone: rebuild its receiver, and drop the slot with pg_drop_replication_slot"
	case !s.Active && s.RetainedBytes < 0:
		return ""
	case !s.Active:
		return fmt.Sprintf("nobody uses it, and the server keeps %d bytes of log for it, and more until its disk is full: start its receiver, or drop the slot with pg_drop_replication_slot", s.RetainedBytes)
	case s.Status == "unreserved":
		return "the log that it needs will be removed at the next checkpoint: let its receiver catch up, and raise max_slot_wal_keep_size"
	default:
		return ""
	}
}
