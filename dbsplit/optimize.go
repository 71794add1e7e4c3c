package dbsplit

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

// maintenanceLockTimeout is how long maintenance waits for a lock before it gives up: a waiting ACCESS EXCLUSIVE lock
// would hold up everybody who comes after it.
const maintenanceLockTimeout = 3 * time.Second

// OptimizeOptions adjust OptimizeTable.
type OptimizeOptions struct {
	// Reindex also rebuilds the table's indexes, without blocking writes. It needs disk space for a second copy of each.
	Reindex bool
}

// OptimizeReport says what OptimizeTable has done.
type OptimizeReport struct {
	// Table is the table's qualified name.
	Table string `json:"table"`
	// Done are the statements that were run, or would be.
	Done []string `json:"done"`
	// Before and After are the table's state; both zero in a dry run.
	Before TableState `json:"before,omitzero"`
	After  TableState `json:"after,omitzero"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds,omitzero"`
}

// TableState is what the statistics say of a table and its partitions.
type TableState struct {
	LiveRows   int64 `json:"live_rows"`
	DeadRows   int64 `json:"dead_rows"`
	Bytes      int64 `json:"bytes"`
	Vacuums    int64 `json:"vacuums"`
	Indexes    int64 `json:"indexes"`
	BadIndexes int64 `json:"invalid_indexes"`
}

// OptimizeTable runs VACUUM (ANALYZE) on a table of the primary. That a role which does not own the table gets only
// a warning from PostgreSQL, and no effect, is an error here; so is, before anything is done, a reindex that is not the
// role's to do, and a table that is not among Options.MaintainTables. Errors are *admin.Problem where the caller can do something.
func (db *DB) OptimizeTable(ctx context.Context, table string, opts OptimizeOptions) (*OptimizeReport, error) {
	r, report, err := db.planOptimize(ctx, table, opts)
	if err != nil {
		return nil, err
	}
	s, err := db.operate(ctx, "optimize")
	if err != nil {
		return nil, err
	}
	defer s.close()
	begun := time.Now()
	if report.Before, err = tableState(ctx, s, r); err != nil {
		return nil, unavailable(err)
	}
	for _, sql := range report.Done {
		if err := s.step(func() error { return s.run(ctx, sql) }); err != nil {
			return nil, optimizeProblem(ctx, s, r, sql, err)
		}
	}
	if report.After, err = tableState(ctx, s, r); err != nil {
		return nil, unavailable(err)
	}
	report.Seconds = time.Since(begun).Seconds()
	return report, nil
}

// planOptimize checks everything that can be checked before the work begins.
func (db *DB) planOptimize(ctx context.Context, table string, opts OptimizeOptions) (relation, *OptimizeReport, error) {
	if err := db.allow(ctx); err != nil {
		return relation{}, nil, refusedOperation(err)
	}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	conn, leave, err := db.visit(ctx, db.writer.Load())
	if err != nil {
		return relation{}, nil, unreachable(err)
	}
	defer leave()
	r, err := findTable(ctx, conn, table)
	if err != nil {
		return r, nil, err
	}
	if may := db.opts.MaintainTables; len(may) > 0 && !r.among(may) {
		return r, nil, forbidden("%s is not among the tables that this service may maintain: take one of %s, or add it to Options.MaintainTables", r, strings.Join(may, ", "))
	}
	switch {
	case r.kind == "m":
		return r, nil, admin.Invalid("table", "%s is a materialised view: REFRESH it instead", r)
	case !r.vacuums:
		return r, nil, admin.Conflict("%s belongs to another role, so PostgreSQL would skip it: connect as its owner, or as the database's", r)
	case opts.Reindex && !r.reindexes:
		return r, nil, admin.Conflict("%s belongs to another role, so its indexes cannot be rebuilt: connect as its owner, or optimize it without reindex", r)
	}
	report := &OptimizeReport{Table: r.String(), Done: []string{"VACUUM (ANALYZE) " + r.String()}}
	if opts.Reindex {
		report.Done = append(report.Done, "REINDEX TABLE CONCURRENTLY "+r.String())
	}
	return r, report, nil
}

func optimizeProblem(ctx context.Context, s *session, r relation, sql string, err error) error {
	if movedAway(err) {
		return unavailable(err)
	}
	if sqlState(err) == stateLockNotAvailable {
		return admin.Conflict("%s gave up after waiting %v for a lock on %s: end the transaction that holds it, or try again later", sql, maintenanceLockTimeout, r)
	}
	if ctx.Err() == nil && !s.IsClosed() {
		if after, stateErr := tableState(ctx, s, r); stateErr == nil && after.BadIndexes > 0 {
			return admin.Conflict("%s failed (%v) and left %d invalid indexes on %s: drop them", sql, err, after.BadIndexes, r)
		}
	}
	return admin.Conflict("%s did not do its work: %v", sql, err)
}

func tableState(ctx context.Context, q querier, r relation) (TableState, error) {
	const sql = `-- name: dbsplit_table_state
with tables as (select $1::oid as oid union select relid from pg_partition_tree($1::oid))
select coalesce(sum(s.n_live_tup), 0)::bigint, coalesce(sum(s.n_dead_tup), 0)::bigint,
	coalesce(sum(pg_total_relation_size(t.oid)), 0)::bigint, coalesce(sum(s.vacuum_count), 0)::bigint,
	(select count(*) from pg_index i where i.indrelid in (select oid from tables)),
	(select count(*) from pg_index i where i.indrelid in (select oid from tables) and not i.indisvalid)
from tables t left join pg_stat_all_tables s on s.relid = t.oid`
	var st TableState
	err := q.QueryRow(ctx, sql, r.oid).Scan(&st.LiveRows, &st.DeadRows, &st.Bytes, &st.Vacuums, &st.Indexes, &st.BadIndexes)
	if err != nil {
		return st, fmt.Errorf("dbsplit: state of %s: %w", r, err)
	}
	return st, nil
}

// forbidden is 403: the service's configuration does not allow it to anybody.
func forbidden(format string, args ...any) *admin.Problem {
	return &admin.Problem{Status: http.StatusForbidden, Title: http.StatusText(http.StatusForbidden), Detail: fmt.Sprintf(format, args...)}
}

// refusedOperation is what a writing operation answers while the gate refuses writes.
func refusedOperation(gate error) error {
	p := admin.Unavailable(gate, "writes are refused at the moment, and this operation writes: end read-only mode first")
	p.RetryAfter = 60
	return p
}
