package dbsplit

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

const maxMonthsAhead = 120

// EnsurePartitions makes the monthly partitions that are missing among the present month and the monthsAhead following
// ones, in UTC, with the parent's indexes. Writers go on meanwhile, except that a default partition is locked for a
// moment. With dryRun it only says what it would make. Errors are *admin.Problem where the caller can do something.
func (db *DB) EnsurePartitions(ctx context.Context, table string, monthsAhead int, dryRun bool) (*PartitionReport, error) {
	if monthsAhead < 0 || monthsAhead > maxMonthsAhead {
		return nil, admin.Invalid("months", "%d months ahead: give 0 to %d", monthsAhead, maxMonthsAhead)
	}
	s, r, end, err := db.partitionsAlone(ctx, table)
	if err != nil {
		return nil, err
	}
	defer end()
	missing, err := missingMonths(r.parent.name, r.Partitions, time.Now(), monthsAhead)
	if err != nil {
		return nil, admin.Conflict("%s has no monthly partitions: %v", r.parent, err)
	}
	if err := r.check(ctx, s, missing); err != nil {
		return nil, err
	}
	if err := r.checkDefault(ctx, s, missing); err != nil {
		return nil, err
	}
	names := []string{}
	for _, m := range missing {
		names = append(names, m.name)
		if dryRun {
			continue
		}
		if err := r.make(ctx, s, m); err != nil {
			return nil, err
		}
	}
	if !dryRun && len(names) > 0 {
		if r, err = partitionsOf(ctx, s, table); err != nil {
			return nil, err
		}
	}
	r.Created = names
	return r, nil
}

// check finds what would stop the work, before anything is made.
func (r *PartitionReport) check(ctx context.Context, q querier, missing []month) error {
	if !r.parent.owned && len(missing) > 0 {
		return admin.Conflict("%s belongs to another role: connect as its owner", r.parent)
	}
	for _, m := range missing {
		if len(m.name) > maxNameBytes {
			return admin.Conflict("the name %s would be longer than the %d bytes that PostgreSQL keeps: rename the table", m.name, maxNameBytes)
		}
		var taken bool
		if err := q.QueryRow(ctx, "select to_regclass($1) is not null", r.child(m).String()).Scan(&taken); err != nil {
			return unavailable(err)
		}
		if taken {
			return admin.Conflict("%s exists but is no partition of %s: attach or rename it", r.child(m), r.parent)
		}
	}
	return nil
}

// checkDefault finds rows that belong into a month which is to be made.
func (r *PartitionReport) checkDefault(ctx context.Context, q querier, missing []month) error {
	if r.def == nil {
		return nil
	}
	for _, m := range missing {
		var stray bool
		sql := fmt.Sprintf("select exists (select from %s where %s)", r.def, r.within(m))
		if err := q.QueryRow(ctx, sql).Scan(&stray); err != nil {
			return unavailable(err)
		}
		if stray {
			return admin.Conflict("the default partition %s has rows of %04d-%02d, so that month cannot have a partition: move them out first, with move-default", r.def, m.from.Year(), m.from.Month())
		}
	}
	return nil
}

// make creates one partition. Attaching a finished table takes a weaker lock on the parent than CREATE … PARTITION OF, and the
// CHECK spares it the scan.
func (r *PartitionReport) make(ctx context.Context, s *session, m month) error {
	err := untilUnlocked(ctx, func() error {
		return briefly(ctx, s, heldTimeout, func(tx pgx.Tx) error {
			return inOrder(ctx, tx, r.create(m), r.bound(m), r.attach(m), r.unbound(m))
		})
	})
	return r.problem("the partition "+m.name+" was not made", heldTimeout, err)
}
