package replicasafe

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Catalog is what a database has, by object id, so that a renamed thing is still the same.
type Catalog struct {
	Tables  map[uint32]Table
	Indexes map[uint32]Index
}

// Table is a table, partitioned or not, or a materialized view.
type Table struct {
	Name     string // as SQL has it, quoted if need be
	Kind     string // pg_class.relkind
	Unlogged bool
	File     uint32 // where its rows are; another one after a rewrite
	Columns  map[int]Column
}

// Column is a column by its number.
type Column struct {
	Name, Type          string
	NotNull, HasDefault bool
}

// Index is an index on a table.
type Index struct {
	Name  string
	Table uint32
}

const (
	partitioned = "p"
	hasRows     = "rm" // the kinds that have a file
)

// read looks at everything but what belongs to PostgreSQL and to goose.
func read(ctx context.Context, conn *pgx.Conn) (Catalog, error) {
	c := Catalog{Tables: map[uint32]Table{}, Indexes: map[uint32]Index{}}
	const ours = `n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema' AND c.relname <> 'goose_db_version'`
	rows, err := conn.Query(ctx, `
		SELECT c.oid, c.oid::regclass::text, c.relkind::text, c.relpersistence = 'u', coalesce(pg_relation_filenode(c.oid), 0)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'm') AND `+ours)
	if err != nil {
		return c, err
	}
	var oid, table uint32
	t := Table{}
	if _, err := pgx.ForEachRow(rows, []any{&oid, &t.Name, &t.Kind, &t.Unlogged, &t.File}, func() error {
		t.Columns = map[int]Column{}
		c.Tables[oid] = t
		return nil
	}); err != nil {
		return c, err
	}
	rows, err = conn.Query(ctx, `
		SELECT a.attrelid, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
			a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm') AND `+ours)
	if err != nil {
		return c, err
	}
	var number int
	column := Column{}
	if _, err := pgx.ForEachRow(rows, []any{&table, &number, &column.Name, &column.Type, &column.NotNull, &column.HasDefault}, func() error {
		c.Tables[table].Columns[number] = column
		return nil
	}); err != nil {
		return c, err
	}
	rows, err = conn.Query(ctx, `
		SELECT c.oid, c.oid::regclass::text, x.indrelid
		FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE `+ours+`
		AND x.indrelid <> coalesce(to_regclass('goose_db_version'), 0)`)
	if err != nil {
		return c, err
	}
	index := Index{}
	_, err = pgx.ForEachRow(rows, []any{&oid, &index.Name, &index.Table}, func() error {
		c.Indexes[oid] = index
		return nil
	})
	return c, err
}

// lines says everything by name, in order, to compare what was made twice.
func (c Catalog) lines() []string {
	out := map[string]bool{}
	for _, t := range c.Tables {
		out[fmt.Sprintf("table %s", t.Name)] = true
		for _, column := range t.Columns {
			out[fmt.Sprintf("column %s.%s %s not null %t default %t", t.Name, column.Name, column.Type, column.NotNull, column.HasDefault)] = true
		}
	}
	for _, i := range c.Indexes {
		out[fmt.Sprintf("index %s", i.Name)] = true
	}
	return slices.Sorted(maps.Keys(out))
}
