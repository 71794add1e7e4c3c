package dbsplit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

// SizesReport is how large this database is, and how it has grown.
type SizesReport struct {
	// Database is its name.
	Database string `json:"database"`
	// Bytes is its size on disk; its tables and the system's catalogues are in it, the server's log is not.
	Bytes int64 `json:"bytes"`
	// Tables are the largest ones, in order. A table's partitions are summed up in it.
	Tables []TableSize `json:"tables"`
	// Count is how many tables there are.
	Count int `json:"count"`
	// Locked are tables that were left out, because another transaction has locked them or waits to.
	Locked []string `json:"locked,omitempty"`
	// Since is where the window of the growth begins; absent when there is nothing to compare with yet. Nothing is known from
	// before this process began.
	Since time.Time `json:"since,omitzero"`
	// WindowSeconds is how long it is: at most what was asked for, or as little more as what was measured earlier allows.
	WindowSeconds float64 `json:"window_seconds"`
	// Growth is the database's.
	Growth *Growth `json:"growth,omitempty"`
}

// TableSize is one table with its partitions.
type TableSize struct {
	// Table is the qualified name.
	Table string `json:"table"`
	// Partitions is how many tables its rows are in; zero when it is not partitioned.
	Partitions int `json:"partitions,omitempty"`
	// Bytes is the sum of the next three: HeapBytes with the free space and visibility maps, IndexBytes, and ToastBytes of values
	// that were stored out of line, with their index.
	Bytes      int64 `json:"bytes"`
	HeapBytes  int64 `json:"heap_bytes"`
	IndexBytes int64 `json:"index_bytes"`
	ToastBytes int64 `json:"toast_bytes"`
	// LiveRows and DeadRows are the statistics' estimates.
	LiveRows int64 `json:"live_rows"`
	DeadRows int64 `json:"dead_rows"`
	// Growth is absent when the table was not there when the window began.
	Growth *Growth `json:"growth,omitempty"`

	oid uint32
}

// Growth is a difference of sizes; it is negative for what has shrunk.
type Growth struct {
	Bytes int64 `json:"bytes"`
	// PerDayBytes is the same for a day; absent when the window is shorter than an hour, which says nothing about one.
	PerDayBytes *int64 `json:"per_day_bytes,omitempty"`
}

const (
	defaultGrowthWindow = 24 * time.Hour
	shortestForecast    = time.Hour
	// sizesLockTimeout bounds the wait for a table that was locked just now.
	sizesLockTimeout = time.Second
)

// Measuring a table waits for whoever holds it in ACCESS EXCLUSIVE mode, and behind whoever waits for that, so such
// tables are left out.
const sizesSQL = `-- name: dbsplit_sizes
with locked as materialized (
	select distinct relation as oid from pg_locks
	where locktype = 'relation' and mode = 'AccessExclusiveLock' and pid <> pg_backend_pid()
		and database = (select oid from pg_database where datname = current_database())
), tables as materialized (
	select c.oid, c.relkind, c.reltoastrelid, coalesce(pg_partition_root(c.oid)::oid, c.oid) as root,
		exists (select from locked l where l.oid in (c.oid, c.reltoastrelid)
			or l.oid in (select indexrelid from pg_index where indrelid = c.oid)) as locked
	from pg_class c join pg_namespace n on n.oid = c.relnamespace
	where c.relkind in ('r', 'm', 'p') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
), measured as materialized (
	select t.root, t.relkind, t.locked,
		case when t.locked then 0 else coalesce(pg_total_relation_size(t.oid), 0) end as total,
		case when t.locked then 0 else coalesce(pg_indexes_size(t.oid), 0) end as index,
		case when t.locked then 0 else coalesce(pg_total_relation_size(nullif(t.reltoastrelid, 0)), 0) end as toast,
		coalesce(s.n_live_tup, 0) as live, coalesce(s.n_dead_tup, 0) as dead
	from tables t left join pg_stat_all_tables s on s.relid = t.oid
)
select m.root, n.nspname, c.relname, bool_or(m.locked),
	case when c.relkind = 'p' then count(*) filter (where m.relkind <> 'p') else 0 end,
	sum(total)::bigint, sum(index)::bigint, sum(toast)::bigint, sum(live)::bigint, sum(dead)::bigint
from measured m join pg_class c on c.oid = m.root join pg_namespace n on n.oid = c.relnamespace
group by m.root, n.nspname, c.relname, c.relkind`

// Sizes measures the database and its tables on the primary, and compares with what this process measured earlier, at
// most window ago where it did; Run measures every 10 minutes. Nothing is reset, and no privilege is needed. At most limit tables are
// returned. Errors are *admin.Problem.
func (db *DB) Sizes(ctx context.Context, window time.Duration, limit int) (*SizesReport, error) {
	if window <= 0 {
		return nil, admin.Invalid("window", "%v is no window: give a duration like 24h", window)
	}
	r, err := db.measureSizes(ctx)
	if err != nil {
		return nil, err
	}
	now := r.snapshot(time.Now())
	r.compare(now, db.sizes.since(now, window))
	slices.SortFunc(r.Tables, func(a, b TableSize) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Table, b.Table))
	})
	r.Tables = slices.Clip(r.Tables[:min(max(limit, 0), len(r.Tables))])
	return r, nil
}

func (db *DB) measureSizes(ctx context.Context) (*SizesReport, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	conn, leave, err := db.visit(ctx, db.writer.Load())
	if err != nil {
		return nil, unreachable(err)
	}
	defer leave()
	r := &SizesReport{Tables: []TableSize{}}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return r.load(ctx, tx) })
	if sqlState(err) == stateLockNotAvailable {
		return nil, admin.Conflict("a table was locked while it was measured: call again")
	} else if err != nil {
		return nil, unavailable(err)
	}
	r.Count = len(r.Tables) + len(r.Locked)
	return r, nil
}

func (r *SizesReport) load(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "select set_config('lock_timeout', $1, true)", sizesLockTimeout.String()); err != nil {
		return err
	}
	err := tx.QueryRow(ctx, "-- name: dbsplit_database_size\nselect current_database(), pg_database_size(current_database())").Scan(&r.Database, &r.Bytes)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, sizesSQL)
	if err != nil {
		return err
	}
	var t TableSize
	var named relation
	var locked bool
	_, err = pgx.ForEachRow(rows, []any{&t.oid, &named.schema, &named.name, &locked, &t.Partitions, &t.Bytes, &t.IndexBytes, &t.ToastBytes, &t.LiveRows, &t.DeadRows}, func() error {
		t.Table, t.HeapBytes = named.String(), t.Bytes-t.IndexBytes-t.ToastBytes
		if locked {
			r.Locked = append(r.Locked, t.Table)
		} else {
			r.Tables = append(r.Tables, t)
		}
		return nil
	})
	slices.Sort(r.Locked)
	return err
}
