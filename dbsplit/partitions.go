package dbsplit

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

// Partition is one partition of a table partitioned by a range of time. Bounds are in UTC; From is included, To is not.
type Partition struct {
	Name string `json:"name"`
	// From and To are zero where the range is open, and both are for the default partition.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Default is set for the partition of rows that fit nowhere else.
	Default bool `json:"default,omitempty"`
	// RowsEstimate is the planner's; -1 before the first ANALYZE.
	RowsEstimate int64 `json:"rows_estimate"`
	Bytes        int64 `json:"bytes"`
	// DetachPending is set when a DETACH CONCURRENTLY was broken off: readers of the table no longer see the partition, and
	// no other can be detached that way. The retain operation ends it.
	DetachPending bool `json:"detach_pending,omitempty"`

	table relation
}

// PartitionReport describes a partitioned table.
type PartitionReport struct {
	Table string `json:"table"`
	// Key is the column that partitions the table, and KeyType its type.
	Key     string `json:"key"`
	KeyType string `json:"key_type"`
	// Partitions are in the order of their bounds, the default one last.
	Partitions []Partition `json:"partitions"`
	// DefaultRows counts the rows in the default partition, up to 10,000. They stand in the way of partitions for
	// their range.
	DefaultRows int `json:"default_rows"`
	// Gaps are ranges between partitions that have none.
	Gaps []Partition `json:"gaps,omitempty"`
	// Created are the names of partitions made by this call, or that would be.
	Created []string `json:"created,omitempty"`

	parent relation
	def    *relation
}

const countedDefaultRows = 10_000

// Partitions describes a table that is partitioned by ranges of a date or timestamp column. Errors are *admin.Problem where
// the caller can do something.
func (db *DB) Partitions(ctx context.Context, table string) (*PartitionReport, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	s, err := db.connect(ctx, db.writer.Load(), "partitions")
	if err != nil {
		return nil, unavailable(err)
	}
	defer s.close()
	return partitionsOf(ctx, s, table)
}

func partitionsOf(ctx context.Context, q querier, table string) (*PartitionReport, error) {
	parent, err := findTable(ctx, q, table)
	if err != nil {
		return nil, err
	}
	if parent.kind != "p" {
		return nil, admin.Conflict("%s is not partitioned: declare it with PARTITION BY RANGE", parent)
	}
	r := &PartitionReport{Table: parent.String(), Partitions: []Partition{}, parent: parent}
	var strategy string
	err = q.QueryRow(ctx, `-- name: dbsplit_partition_key
select p.partstrat::text, coalesce(a.attname, ''), coalesce(format_type(a.atttypid, null), '')
from pg_partitioned_table p left join pg_attribute a on a.attrelid = p.partrelid and p.partnatts = 1 and a.attnum = p.partattrs[0] and a.attnum > 0
where p.partrelid = $1`, parent.oid).Scan(&strategy, &r.Key, &r.KeyType)
	if err != nil {
		return nil, unavailable(err)
	}
	if _, ok := boundFormats[r.KeyType]; strategy != "r" || !ok {
		return nil, admin.Unsupported("%s is not partitioned by ranges of one date or timestamp column", parent)
	}
	if err := r.load(ctx, q); err != nil {
		return nil, err
	}
	r.Gaps = gaps(r.Partitions)
	return r, nil
}

// boundFormats are how bounds are written for each type of key: with an explicit zone where the type has one, since a
// bare date means midnight in the session's zone.
var boundFormats = map[string]string{
	"date":                        "2006-01-02",
	"timestamp without time zone": "2006-01-02 15:04:05",
	"timestamp with time zone":    "2006-01-02 15:04:05-07",
}

func (r *PartitionReport) load(ctx context.Context, q querier) error {
	rows, err := q.Query(ctx, `-- name: dbsplit_partitions
select n.nspname, c.relname, c.oid, pg_get_expr(c.relpartbound, c.oid), c.reltuples::bigint, coalesce(pg_total_relation_size(c.oid), 0), i.inhdetachpending
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
where i.inhparent = $1`, r.parent.oid)
	if err != nil {
		return unavailable(err)
	}
	var child relation
	var bound string
	var p Partition
	var unknown error
	_, err = pgx.ForEachRow(rows, []any{&child.schema, &child.name, &child.oid, &bound, &p.RowsEstimate, &p.Bytes, &p.DetachPending}, func() error {
		p.Name, p.table = child.name, child
		var err error
		if p.From, p.To, p.Default, err = parseBound(bound, boundFormats[r.KeyType]); err != nil {
			unknown = admin.Unsupported("the bounds of %s cannot be read, only those of the years 1 to 9999: %v", child, err)
			return nil
		}
		if p.Default {
			def := child
			r.def = &def
		}
		r.Partitions = append(r.Partitions, p)
		return nil
	})
	if err != nil {
		return unavailable(err)
	}
	if unknown != nil {
		return unknown
	}
	sortPartitions(r.Partitions)
	if r.def != nil {
		sql := fmt.Sprintf("-- name: dbsplit_default_rows\nselect count(*) from (select from %s limit %d) rows", r.def, countedDefaultRows)
		if err := q.QueryRow(ctx, sql).Scan(&r.DefaultRows); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

var rangeBound = regexp.MustCompile(`^FOR VALUES FROM \((?:'([^']*)'|MINVALUE)\) TO \((?:'([^']*)'|MAXVALUE)\)$`)

// parseBound reads what pg_get_expr prints in a session whose zone is UTC.
func parseBound(text, format string) (from, to time.Time, isDefault bool, err error) {
	if text == "DEFAULT" {
		return from, to, true, nil
	}
	m := rangeBound.FindStringSubmatch(text)
	if m == nil {
		return from, to, false, fmt.Errorf("dbsplit: partition bound %q is of an unknown form", text)
	}
	parse := func(s string) time.Time {
		if s == "" || s == "-infinity" || s == "infinity" {
			return time.Time{}
		}
		t, parseErr := time.Parse(format, s)
		if parseErr != nil {
			err = fmt.Errorf("dbsplit: partition bound %q: %w", text, parseErr)
		}
		return t.UTC()
	}
	from, to = parse(m[1]), parse(m[2])
	return from, to, false, err
}
