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
	// attachLockTimeout keeps a change that must wait from holding up everybody who comes after it.
	attachLockTimeout = 300 * time.Millisecond
	attachTries       = 5
	attachPause       = 200 * time.Millisecond

	// heldTimeout bounds each statement that keeps others waiting: ATTACH searches all of a default partition under the
	// strongest lock.
	heldTimeout = 10 * time.Second

	// partitionLock is the first key of the advisory lock under which one runner at a time changes a table's partitions;
	// the second is the table.
	partitionLock = 0x5ca1ea
)

// partitionsAlone opens a session that changes the partitions of a table, the only one to do so until end is called.
func (db *DB) partitionsAlone(ctx context.Context, table string) (s *session, r *PartitionReport, end func(), err error) {
	if s, err = db.operate(ctx, "partitions"); err != nil {
		return nil, nil, nil, err
	}
	if r, err = partitionsOf(ctx, s, table); err == nil {
		err = r.alone(ctx, s)
	}
	if err != nil {
		s.close()
		return nil, nil, nil, err
	}
	return s, r, func() {
		// The server may notice the end of the session only after the next call has begun.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = s.Exec(ctx, "select pg_advisory_unlock_all()") // the lock ends with the session anyway
		s.close()
	}, nil
}

// alone takes the advisory lock of the table, or says that somebody else has it.
func (r *PartitionReport) alone(ctx context.Context, s *session) error {
	var alone bool
	if err := s.QueryRow(ctx, "select pg_try_advisory_lock($1::int, $2::oid::int)", partitionLock, r.parent.oid).Scan(&alone); err != nil {
		return unavailable(err)
	}
	if !alone {
		return admin.Conflict("another run is changing partitions of %s: wait for it to end", r.parent)
	}
	return nil
}

// errLocked is what untilUnlocked gives up with.
var errLocked = errors.New("a lock was in the way each time")

// untilUnlocked does what needs a lock, and again when the lock was not to be had.
func untilUnlocked(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if state := sqlState(err); state != stateLockNotAvailable && state != stateDeadlock {
			return err
		}
		if try == attachTries {
			return fmt.Errorf("%w: %w", errLocked, err)
		}
		if err := pause(ctx, time.Duration(try)*attachPause); err != nil {
			return err
		}
	}
}

// briefly runs work in one transaction that waits for no lock longer than attachLockTimeout, and whose statements may take
// as long as hold. Like any transaction of the DB it is not committed once writes have moved.
func briefly(ctx context.Context, s *session, hold time.Duration, work func(tx pgx.Tx) error) error {
	return s.step(func() error {
		return pgx.BeginFunc(ctx, s.Conn, func(tx pgx.Tx) error {
			err := inOrder(ctx, tx,
				fmt.Sprintf("set local lock_timeout = %d", attachLockTimeout.Milliseconds()),
				fmt.Sprintf("set local statement_timeout = %d", hold.Milliseconds()))
			if err != nil {
				return err
			}
			if err := work(tx); err != nil {
				return err
			}
			return s.db.stillWriter(s.node)
		})
	})
}

func inOrder(ctx context.Context, q querier, statements ...string) error {
	for _, sql := range statements {
		if _, err := q.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// problem tells the caller of an operation what failed, and what to do. Nil stays nil.
func (r *PartitionReport) problem(what string, hold time.Duration, err error) error {
	state := sqlState(err)
	_, told := errors.AsType[*admin.Problem](err)
	switch {
	case err == nil || told:
		return err
	case errors.Is(err, errLocked):
		return admin.Conflict("%s: %s or a partition of it was locked in each of %d tries: end the long transaction on it, or try again later", what, r.parent, attachTries)
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case state == stateCancelled:
		return admin.Conflict("%s: a statement was cancelled, or took longer than the %v that others may be kept waiting. Nothing was changed: try again at a quiet time, and empty a large default partition first", what, hold)
	case movedAway(err):
		return unavailable(fmt.Errorf("%s: %w", what, err))
	case state == "":
		return unavailable(err)
	}
	return admin.Conflict("%s: %v", what, err)
}

// The statements that make a month's partition. create copies everything but identity, which the parent gives; bound
// is the CHECK that spares ATTACH the search for rows that do not belong there.

func (r *PartitionReport) create(m month) string {
	return fmt.Sprintf("create table %s (like %s including all excluding identity)", r.child(m), r.parent)
}

func (r *PartitionReport) bound(m month) string {
	key := pgx.Identifier{r.Key}.Sanitize()
	return fmt.Sprintf("alter table %s add constraint scaleaware_bounds check (%s is not null and %s)", r.child(m), key, r.within(m))
}

func (r *PartitionReport) attach(m month) string {
	from, to := r.literals(m)
	return fmt.Sprintf("alter table %s attach partition %s for values from (%s) to (%s)", r.parent, r.child(m), from, to)
}

func (r *PartitionReport) unbound(m month) string {
	return fmt.Sprintf("alter table %s drop constraint scaleaware_bounds", r.child(m))
}

// within is the condition that a row belongs into the month.
func (r *PartitionReport) within(m month) string {
	key := pgx.Identifier{r.Key}.Sanitize()
	from, to := r.literals(m)
	return fmt.Sprintf("%s >= %s and %s < %s", key, from, key, to)
}

func (r *PartitionReport) child(m month) relation {
	return relation{schema: r.parent.schema, name: m.name}
}

// literals are the month's bounds as SQL. Their text is made of digits and punctuation only.
func (r *PartitionReport) literals(m month) (from, to string) {
	format := boundFormats[r.KeyType]
	return "'" + m.from.Format(format) + "'", "'" + m.to.Format(format) + "'"
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
