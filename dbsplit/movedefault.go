package dbsplit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

// MoveOptions adjust MoveDefaultRows.
type MoveOptions struct {
	// MaxRows is the most rows of one month that are moved: the table's writers wait meanwhile. Zero means 100,000.
	MaxRows int
	// Timeout bounds each statement that keeps others waiting. Zero means 10 s.
	Timeout time.Duration
	// DryRun reports what would be moved.
	DryRun bool
}

const defaultMoveRows = 100_000

// MoveReport is what MoveDefaultRows did.
type MoveReport struct {
	Table string `json:"table"`
	// Default is the default partition; empty when there is none.
	Default string `json:"default,omitempty"`
	// Count is how many rows were moved.
	Count int64 `json:"count"`
	// Months are those that have rows in the default partition, in order.
	Months []MovedMonth `json:"months"`
	// Left counts the rows that belong into no month: their key is null, infinite or outside of the years 1 to 9998.
	Left int64 `json:"left,omitempty"`
}

// MovedMonth is one month, in UTC, and what became of its rows.
type MovedMonth struct {
	// Partition is the table that the rows were moved to.
	Partition string    `json:"partition"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Rows      int64     `json:"rows"`
	// Result is moved, dry-run or refused.
	Result string `json:"result"`
	// Reason says why it was refused, and what to do.
	Reason string `json:"reason,omitempty"`

	month month
}

// clone is for readers that go on while the work does.
func (r *MoveReport) clone() *MoveReport {
	c := *r
	c.Months = slices.Clone(r.Months)
	return &c
}

// MoveDefaultRows gives each month, in UTC, that has rows in the table's default partition a partition of its own and moves
// the rows there. Each month is one transaction: readers of the table, on replicas too, see every row exactly once at
// every moment, and when it is broken off the months are whole, so it can be called again. Writers of the table wait
// while a month is moved, and then go to the new partition; readers wait for a moment. Whoever reads the table and then
// writes to it in one transaction makes the move try again, and may himself be refused with a deadlock (40P01). A month of
// more rows than opts.MaxRows is refused, and the others are moved. Errors are *admin.Problem where the caller can do something.
func (db *DB) MoveDefaultRows(ctx context.Context, table string, opts MoveOptions) (*MoveReport, error) {
	return db.moveDefaultRows(ctx, table, opts, func(*MoveReport) {})
}

func (db *DB) moveDefaultRows(ctx context.Context, table string, opts MoveOptions, progress func(*MoveReport)) (*MoveReport, error) {
	if opts.MaxRows < 0 {
		return nil, admin.Invalid("max_rows", "%d rows: give 1 or more", opts.MaxRows)
	} else if opts.MaxRows == 0 {
		opts.MaxRows = defaultMoveRows
	}
	if opts.Timeout < 0 || opts.Timeout > 0 && opts.Timeout < time.Millisecond {
		return nil, admin.Invalid("timeout", "%v is too short: give 1ms or more", opts.Timeout)
	} else if opts.Timeout == 0 {
		opts.Timeout = heldTimeout
	}
	s, r, end, err := db.partitionsAlone(ctx, table)
	if err != nil {
		return nil, err
	}
	defer end()
	report, columns, err := r.planMove(ctx, s, opts)
	if err != nil {
		return nil, err
	}
	for i := range report.Months {
		m := &report.Months[i]
		if opts.DryRun || m.Result == "refused" {
			continue
		}
		if m.Rows, err = r.move(ctx, s, m.month, columns, opts); err != nil {
			if i > 0 {
				what := fmt.Sprintf("%d rows of earlier months were moved before, so call again for the rest; then", report.Count)
				return nil, r.problem(what+" "+m.Partition+" was not filled", opts.Timeout, err)
			}
			return nil, r.problem(m.Partition+" was not filled", opts.Timeout, err)
		}
		m.Result = "moved"
		report.Count += m.Rows
		db.opts.Logger.Info("dbsplit: moved rows out of the default partition", "db", db.opts.Name, "table", report.Table, "partition", m.Partition, "rows", m.Rows)
		progress(report)
	}
	return report, nil
}

// planMove counts the rows of each month, and finds what would stop the work before anything is changed.
func (r *PartitionReport) planMove(ctx context.Context, s *session, opts MoveOptions) (report *MoveReport, columns string, err error) {
	report = &MoveReport{Table: r.parent.String(), Months: []MovedMonth{}}
	if r.def == nil {
		return report, "", nil
	}
	report.Default = r.def.String()
	if err := r.checkMove(ctx, s); err != nil {
		return nil, "", err
	}
	if err := r.countMonths(ctx, s, report); err != nil {
		return nil, "", err
	}
	for i := range report.Months {
		m := &report.Months[i]
		m.Result = "dry-run"
		if m.Rows > int64(opts.MaxRows) {
			m.Result, m.Reason = "refused", tooMany(m.Rows, opts.MaxRows)
		} else if _, err := m.month.covered(r.Partitions); err != nil {
			m.Result, m.Reason = "refused", err.Error()+": make the other partitions of that month first"
		} else if err := r.check(ctx, s, []month{m.month}); err != nil {
			return nil, "", err
		}
	}
	// A generated column cannot be written: it is computed again, from the same columns.
	err = s.QueryRow(ctx, `-- name: dbsplit_columns
select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
where attrelid = $1 and attnum > 0 and not attisdropped and attgenerated = ''`, r.parent.oid).Scan(&columns)
	if err != nil {
		return nil, "", unavailable(err)
	}
	return report, columns, nil
}

func tooMany(rows int64, most int) string {
	return fmt.Sprintf("it has %d rows in the default partition, and writers would wait while more than %d are moved: call again with a greater max_rows, and timeout if need be, at a quiet time", rows, most)
}

// checkMove finds what would act on the rows' DELETE: it is none to anybody who looks at the table.
func (r *PartitionReport) checkMove(ctx context.Context, q querier) error {
	if !r.parent.owned {
		return admin.Conflict("%s belongs to another role: connect as its owner", r.parent)
	}
	var references, triggers string
	err := q.QueryRow(ctx, `-- name: dbsplit_move_obstacles
with moved as (select $2::oid as oid union select relid from pg_partition_tree($2::oid))
select
	(select coalesce(string_agg(distinct conrelid::regclass::text, ', '), '') from pg_constraint
		where contype = 'f' and (confrelid = $1 or confrelid in (select oid from moved))),
	(select coalesce(string_agg(distinct t.tgname, ', '), '') from pg_trigger t left join pg_constraint c on c.oid = t.tgconstraint
		where t.tgrelid in (select oid from moved) and t.tgtype & 8 <> 0 and t.tgenabled in ('O', 'A') and c.contype is distinct from 'f')`,
		r.parent.oid, r.def.oid).Scan(&references, &triggers)
	switch {
	case err != nil:
		return unavailable(err)
	case references != "":
		return admin.Conflict("foreign keys of %s refer to %s, and moving a row would be a DELETE to them: drop those constraints first, and add them again afterwards", references, r.parent)
	case triggers != "":
		return admin.Conflict("moving rows out of %s would fire its triggers on DELETE: disable %s there first, and enable them again afterwards", r.def, triggers)
	}
	return nil
}

func (r *PartitionReport) countMonths(ctx context.Context, s *session, report *MoveReport) error {
	// Row security must not hide rows: with it off, PostgreSQL refuses where it would.
	if _, err := s.Exec(ctx, "set row_security = off"); err != nil {
		return unavailable(err)
	}
	key := pgx.Identifier{r.Key}.Sanitize()
	rows, err := s.Query(ctx, fmt.Sprintf(`-- name: dbsplit_default_months
select case when %s >= '0001-01-01' and %s < '9999-01-01' then date_trunc('month', %s::timestamp)::date end, count(*)
from %s group by 1 order by 1`, key, key, key, r.def))
	if err != nil {
		return unavailable(err)
	}
	var first *time.Time
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&first, &n}, func() error {
		if first == nil {
			report.Left = n
			return nil
		}
		m := monthOf(r.parent.name, *first)
		report.Months = append(report.Months, MovedMonth{Partition: r.child(m).String(), From: m.from, To: m.to, Rows: n, month: m})
		return nil
	})
	if sqlState(err) == statePrivilege {
		return admin.Conflict("row security hides rows of %s from this role, so it cannot move them: connect as a role with BYPASSRLS", r.def)
	} else if err != nil {
		return unavailable(err)
	}
	return nil
}

// move moves one month. Writers are stopped at the parent: one that waited at the default partition would be refused
// there, after its row's month has gone. Readers are stopped there as well, at the end: one that has already looked up
// the partitions, and then waits for the default one, would find the rows in neither.
func (r *PartitionReport) move(ctx context.Context, s *session, m month, columns string, opts MoveOptions) (moved int64, err error) {
	err = untilUnlocked(ctx, func() error {
		return briefly(ctx, s, opts.Timeout, func(tx pgx.Tx) error {
			err := inOrder(ctx, tx,
				fmt.Sprintf("lock table only %s in share row exclusive mode", r.parent),
				fmt.Sprintf("lock table %s in share row exclusive mode", r.def),
				r.create(m))
			if err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, fmt.Sprintf("-- name: dbsplit_move_month\nwith moved as (delete from %s where %s returning %s) insert into %s (%s) select %s from moved",
				r.def, r.within(m), columns, r.child(m), columns, columns))
			if err != nil {
				return err
			}
			if moved = tag.RowsAffected(); moved > int64(opts.MaxRows) {
				return admin.Conflict("%s was not filled: %s", r.child(m), tooMany(moved, opts.MaxRows))
			}
			return inOrder(ctx, tx, r.bound(m),
				fmt.Sprintf("lock table only %s in access exclusive mode", r.parent),
				fmt.Sprintf("lock table %s in access exclusive mode", r.def),
				r.attach(m), r.unbound(m))
		})
	})
	return moved, err
}
