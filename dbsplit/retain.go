package dbsplit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

// DetachOptions adjust DetachPartitions.
type DetachOptions struct {
	// KeepMonths is how many months before the present one are kept, from 1 to 1200, in UTC. There is no default: zero is an
	// error.
	KeepMonths int
	// Drop also drops the tables that were detached, with their rows. Zero means that they stay, as tables of their own.
	Drop bool
	// DryRun reports what would be done.
	DryRun bool
}

const maxKeepMonths = 1200

// DetachReport is what DetachPartitions did.
type DetachReport struct {
	Table string `json:"table"`
	// KeptFrom is where the kept range begins. A partition that reaches into it is left alone.
	KeptFrom time.Time `json:"kept_from"`
	// Count is how many partitions were detached.
	Count int `json:"count"`
	// Partitions are those that end before, and one whose detaching had been broken off.
	Partitions []DetachedPartition `json:"partitions"`
}

// DetachedPartition is one partition and what became of it.
type DetachedPartition struct {
	Partition
	// Detached is the qualified name of the table.
	Detached string `json:"detached"`
	// Result is detached, dropped or dry-run.
	Result string `json:"result"`
}

// DetachPartitions detaches the partitions of a table that end before the kept months, the oldest first; the default
// partition never is. Without a default partition readers and writers go on meanwhile; with one PostgreSQL locks the whole
// table for a moment. A detaching that had been broken off is ended first, whatever its range. The rows stay in the
// detached tables unless opts.Drop is set, and then are gone for good. Errors are *admin.Problem where the caller can do
// something, and name what was detached before.
func (db *DB) DetachPartitions(ctx context.Context, table string, opts DetachOptions) (*DetachReport, error) {
	if opts.KeepMonths < 1 || opts.KeepMonths > maxKeepMonths {
		return nil, admin.Invalid("keep", "%d months to keep: give 1 to %d", opts.KeepMonths, maxKeepMonths)
	}
	s, r, end, err := db.partitionsAlone(ctx, table)
	if err != nil {
		return nil, err
	}
	defer end()
	now := monthOf("", time.Now().UTC()).from
	report := &DetachReport{Table: r.parent.String(), KeptFrom: now.AddDate(0, -opts.KeepMonths, 0), Partitions: []DetachedPartition{}}
	for _, p := range outdatedPartitions(r.Partitions, report.KeptFrom) {
		report.Partitions = append(report.Partitions, DetachedPartition{Partition: p, Detached: p.table.String(), Result: "dry-run"})
	}
	if !r.parent.owned && len(report.Partitions) > 0 {
		return nil, admin.Conflict("%s belongs to another role: connect as its owner", r.parent)
	}
	if opts.DryRun {
		return report, nil
	}
	for i := range report.Partitions {
		p := &report.Partitions[i]
		if err := r.detach(ctx, s, p.Partition); err != nil {
			return nil, r.problem(report.before()+p.Detached+" was not detached", heldTimeout, err)
		}
		p.Result, p.DetachPending = "detached", false
		report.Count++
		db.opts.Logger.Info("dbsplit: detached a partition", "db", db.opts.Name, "table", report.Table, "partition", p.Detached)
		if !opts.Drop || !p.before(report.KeptFrom) {
			continue
		}
		err := untilUnlocked(ctx, func() error {
			return briefly(ctx, s, heldTimeout, func(tx pgx.Tx) error { return inOrder(ctx, tx, "drop table "+p.Detached) })
		})
		if err != nil {
			return nil, r.problem(report.before()+p.Detached+" was not dropped, so drop it by hand", heldTimeout, err)
		}
		p.Result = "dropped"
		db.opts.Logger.Info("dbsplit: dropped a detached partition", "db", db.opts.Name, "table", report.Table, "partition", p.Detached)
	}
	return report, nil
}

// outdatedPartitions returns the partitions that end before the kept range. The one whose detaching was broken off comes
// first, since no other can be detached before it.
func outdatedPartitions(all []Partition, kept time.Time) []Partition {
	var out []Partition
	for _, p := range all {
		switch {
		case p.DetachPending:
			out = slices.Insert(out, 0, p)
		case !p.Default && p.before(kept):
			out = append(out, p)
		}
	}
	return out
}

// before reports whether all of the partition's range lies before t.
func (p Partition) before(t time.Time) bool { return !p.To.IsZero() && !p.To.After(t) }

// before says what was done already, for an error.
func (r *DetachReport) before() string {
	var names []string
	for _, p := range r.Partitions {
		if p.Result != "dry-run" {
			names = append(names, p.Detached+" ("+p.Result+")")
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "after " + strings.Join(names, ", ") + ": "
}

// detach detaches one partition. Beside a default partition PostgreSQL refuses to do it without locking the parent.
func (r *PartitionReport) detach(ctx context.Context, s *session, p Partition) error {
	sql := fmt.Sprintf("alter table %s detach partition %s", r.parent, p.table)
	if r.def != nil && !p.DetachPending {
		return untilUnlocked(ctx, func() error {
			return briefly(ctx, s, heldTimeout, func(tx pgx.Tx) error { return inOrder(ctx, tx, sql) })
		})
	}
	how := " concurrently"
	if p.DetachPending {
		how = " finalize"
	}
	return untilUnlocked(ctx, func() error {
		err := s.step(func() error { return inOrder(ctx, s, sql+how) })
		if err == nil || s.IsClosed() || movedAway(err) {
			return err
		}
		// What was begun goes on from where it broke off.
		var pending bool
		asked := s.QueryRow(ctx, "select exists (select from pg_inherits where inhrelid = $1 and inhdetachpending)", p.table.oid).Scan(&pending)
		if asked == nil && pending {
			how = " finalize"
		}
		return err
	})
}
