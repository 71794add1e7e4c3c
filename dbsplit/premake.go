package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	// attachLockTimeout keeps an ATTACH that must wait from holding up everybody who comes after it.
	attachLockTimeout = 300 * time.Millisecond
	attachTries       = 5
	attachPause       = 200 * time.Millisecond

	maxMonthsAhead = 120
	// premakeLock is the first key of the advisory lock under which one runner at a time makes a table's partitions;
	// the second is the table.
	premakeLock = 0x5ca1ea
)

// EnsurePartitions makes the monthly partitions that are missing among the present month and the monthsAhead following
// ones, in UTC, with the parent's indexes. Writers go on meanwhile, except that a default partition is locked for a
// moment. With dryRun it only says what it would make. Errors are *admin.Problem where the caller can do something.
func (db *DB) EnsurePartitions(ctx context.Context, table string, monthsAhead int, dryRun bool) (*PartitionReport, error) {
	if err := db.allow(ctx); err != nil {
		return nil, refusedOperation(err)
	}
	if monthsAhead < 0 || monthsAhead > maxMonthsAhead {
		return nil, admin.Invalid("months", "%d months ahead: give 0 to %d", monthsAhead, maxMonthsAhead)
	}
	s, err := db.connect(ctx, "partitions", maintenanceLockTimeout)
	if err != nil {
		return nil, unavailable(err)
	}
	defer s.close()
	r, err := partitionsOf(ctx, s, table)
	if err != nil {
		return nil, err
	}
	var alone bool
	if err := s.QueryRow(ctx, "select pg_try_advisory_lock($1::int, $2::oid::int)", premakeLock, r.parent.oid).Scan(&alone); err != nil {
		return nil, unavailable(err)
	}
	if !alone {
		return nil, admin.Conflict("another run is making partitions of %s: wait for it to end", r.parent)
	}
	// The server may notice the end of the session only after the next call has begun.
	defer s.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock_all()") //nolint:errcheck // the lock ends with the session anyway
	missing, err := missingMonths(r.parent.name, r.Partitions, time.Now(), monthsAhead)
	if err != nil {
		return nil, admin.Conflict("%s has no monthly partitions: %v", r.parent, err)
	}
	if err := r.check(ctx, s, missing); err != nil {
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
		if r.def == nil {
			continue
		}
		var stray bool
		key := pgx.Identifier{r.Key}.Sanitize()
		from, to := r.literals(m)
		sql := fmt.Sprintf("select exists (select from only %s where %s >= %s and %s < %s)", r.def, key, from, key, to)
		if err := q.QueryRow(ctx, sql).Scan(&stray); err != nil {
			return unavailable(err)
		}
		if stray {
			return admin.Conflict("the default partition %s has rows of %04d-%02d, so that month cannot have a partition: move them out first", r.def, m.from.Year(), m.from.Month())
		}
	}
	return nil
}

func (r *PartitionReport) child(m month) relation {
	return relation{schema: r.parent.schema, name: m.name}
}

// literals are the month's bounds as SQL. Their text is made of digits and punctuation only.
func (r *PartitionReport) literals(m month) (from, to string) {
	format := boundFormats[r.KeyType]
	return "'" + m.from.Format(format) + "'", "'" + m.to.Format(format) + "'"
}

// make creates one partition. Attaching a finished table takes a weaker lock on the parent than CREATE … PARTITION OF, and the
// CHECK spares it the scan.
func (r *PartitionReport) make(ctx context.Context, s *session, m month) error {
	child, key := r.child(m), pgx.Identifier{r.Key}.Sanitize()
	from, to := r.literals(m)
	statements := []string{
		fmt.Sprintf("set local lock_timeout = %d", attachLockTimeout.Milliseconds()),
		fmt.Sprintf("create table %s (like %s including all excluding identity)", child, r.parent),
		fmt.Sprintf("alter table %s add constraint scaleaware_bounds check (%s is not null and %s >= %s and %s < %s)", child, key, key, from, key, to),
		fmt.Sprintf("alter table %s attach partition %s for values from (%s) to (%s)", r.parent, child, from, to),
		fmt.Sprintf("alter table %s drop constraint scaleaware_bounds", child),
	}
	for try := 1; ; try++ {
		err := pgx.BeginFunc(ctx, s.Conn, func(tx pgx.Tx) error {
			for _, sql := range statements {
				if _, err := tx.Exec(ctx, sql); err != nil {
					return fmt.Errorf("%s: %w", sql, err)
				}
			}
			return nil
		})
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case sqlState(err) != stateLockNotAvailable:
			if sqlState(err) == "" {
				return unavailable(err)
			}
			return admin.Conflict("the partition was not made: %v", err)
		case try == attachTries:
			return admin.Conflict("%s or its default partition was locked in each of %d tries: end the long transaction on it, or try again later", r.parent, attachTries)
		}
		if err := pause(ctx, time.Duration(try)*attachPause); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("dbsplit: interrupted"), ctx.Err())
	}
}
