package dbsplit_test

import (
	"context"
	"database/sql"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// sqlValues are values of all the types that database/sql sees differently, and of some that are text to it.
var sqlValues = []string{
	"true", "false", `'\x00ff'::bytea`, "''::bytea", "'1'::cid", "'2024-02-29'::date", "'infinity'::date", "1.5::float4",
	"'NaN'::float4", "1e300::float8", "'-Infinity'::float8", "(-32768)::int2", "2147483647::int4",
	"(-9223372036854775808)::int8", `'{"a": [1, null]}'::json`, `'{"a": 1}'::jsonb`, "'null'::jsonb", "12345678901234567890.123456789::numeric",
	"'NaN'::numeric", "1.50::numeric(6, 2)", "4294967295::oid", "'2024-02-29 12:34:56.789012'::timestamp", "'infinity'::timestamp",
	"'2024-02-29 12:34:56.789012+05'::timestamptz", "'-infinity'::timestamptz", "'7'::xid", "'text'", "''", "'ü'::varchar(7)", "'c'::char(3)",
	"'<a/>'::xml", "'12:34:56'::time", "'1 day 2 hours'::interval", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
	"'10.0.0.0/8'::cidr", "'{1,2,NULL}'::int4[]", `'{a,"b c"}'::text[]`, "'[1,5)'::int4range", "'(1,2)'::point", "'101'::varbit(9)",
	"'happy'::mood", "row(1, 'a')::pair", "'1'::\"char\"", "'public'::name",
}

// Code that moves here from pgx's stdlib package gets the same values and the same types, in both formats.
func TestSQLValues(t *testing.T) {
	db, _, _ := settled(t, nil)
	exec(t, db, "create type mood as enum ('happy')")
	exec(t, db, "create type pair as (a int, b text)")
	ctx := within(t, 30*time.Second)
	c, err := pgx.ParseConfig(db.Config().ConnString())
	must(t, err)
	theirs := stdlib.OpenDB(*c)
	t.Cleanup(func() { must(t, theirs.Close()) })
	ours := openSQL(t, db.Connector())
	for _, v := range sqlValues {
		kind := v[strings.LastIndex(v, ":")+1:]
		if !strings.Contains(v, "::") {
			kind = "text"
		}
		switch v {
		case "true", "false":
			kind = "bool"
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
			query := "select " + v + " as v, null::" + kind + " as n union all select null, " + v
			want, got := grid(t, ctx, theirs, query, mode), grid(t, ctx, ours, query, mode)
			if d := cmp.Diff(want, got, cmp.Comparer(sameFloat)); d != "" {
				t.Errorf("%s, %v:\n%s", query, mode, d)
			}
		}
	}
	if got := grid(t, ctx, ours, "select 1 where false", pgx.QueryExecModeCacheStatement); len(got) != 1 {
		t.Errorf("no rows are %v", got)
	}
}

func sameFloat(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// grid returns what database/sql says of a query's columns, and its rows.
func grid(t *testing.T, ctx context.Context, db *sql.DB, query string, args ...any) (all [][]any) {
	t.Helper()
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	must(t, err)
	var head []any
	for _, ct := range types {
		head = append(head, ct.Name(), ct.DatabaseTypeName(), ct.ScanType().String())
	}
	all = append(all, head)
	for rows.Next() {
		row := make([]any, len(types))
		targets := make([]any, len(types))
		for i := range row {
			targets[i] = &row[i]
		}
		must(t, rows.Scan(targets...))
		all = append(all, row)
	}
	must(t, rows.Err())
	return all
}

func TestSQLColumnTypes(t *testing.T) {
	db, _, _ := settled(t, nil)
	all := openSQL(t, db.Connector())
	rows, err := all.QueryContext(t.Context(), `select 'a'::varchar(7), 'a'::varchar, 'a'::char(3), 'a'::text, 1.5::numeric(6, 2), 1.5::numeric,
		150::numeric(3, -1), '1'::varbit(9), 1`)
	must(t, err)
	defer rows.Close()
	types, err := rows.ColumnTypes()
	must(t, err)
	type about struct {
		Length           int64
		Variable         bool
		Precision, Scale int64
		Decimal          bool
	}
	var got []about
	for _, ct := range types {
		var a about
		a.Length, a.Variable = ct.Length()
		a.Precision, a.Scale, a.Decimal = ct.DecimalSize()
		got = append(got, a)
	}
	want := []about{
		{Length: 7, Variable: true}, {Length: math.MaxInt64, Variable: true}, {Length: 3, Variable: true},
		{Length: math.MaxInt64, Variable: true}, {Precision: 6, Scale: 2, Decimal: true}, {},
		{Precision: 3, Scale: -1, Decimal: true}, {Length: 9, Variable: true}, {},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Arrays, ranges and the like go in as pgx takes them, and come out by pgtype.Map.SQLScanner.
func TestSQLComposites(t *testing.T) {
	db, _, _ := settled(t, nil)
	all := openSQL(t, db.Connector())
	ctx := within(t, 20*time.Second)
	m := pgtype.NewMap()
	var (
		numbers []int64
		words   []string
		window  pgtype.Range[pgtype.Int4]
		missing sql.Null[string]
		some    *string
		none    *string
	)
	err := all.QueryRowContext(ctx, "select $1::bigint[], $2::text[], $3::int4range, $4::text, $5::text, $6::text",
		[]int64{1, 2, 3}, []string{"a", "b,c"}, pgtype.Range[pgtype.Int4]{
			Lower: pgtype.Int4{Int32: 1, Valid: true}, Upper: pgtype.Int4{Int32: 5, Valid: true},
			LowerType: pgtype.Inclusive, UpperType: pgtype.Exclusive, Valid: true,
		}, sql.NullString{}, new("here"), (*string)(nil),
	).Scan(m.SQLScanner(&numbers), m.SQLScanner(&words), m.SQLScanner(&window), &missing, &some, &none)
	must(t, err)
	if d := cmp.Diff([]int64{1, 2, 3}, numbers); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a", "b,c"}, words); d != "" {
		t.Error(d)
	}
	if window.Lower.Int32 != 1 || window.Upper.Int32 != 5 || missing.Valid || some == nil || *some != "here" || none != nil {
		t.Errorf("%v %v %v %v", window, missing, some, none)
	}
}

// What is written through database/sql reads back the same, through both protocols and from a transaction.
func FuzzSQLRoundTrip(f *testing.F) {
	f.Add(int64(0), 0.0, "", []byte{}, int64(0), true)
	f.Add(int64(math.MinInt64), math.Inf(-1), "a\\'\"$1--\n\u2028😀", []byte("\x00\\x'"), int64(-1), false)
	f.Add(int64(math.MaxInt64), math.SmallestNonzeroFloat64, "%_{}", []byte(nil), int64(1)<<50, true)
	db, _, _ := settled(f, nil)
	exec(f, db, "create table round (i int8, f float8, s text, b bytea, t timestamptz, o bool, n int8)")
	sqlDB := openSQL(f, db.Connector())
	f.Fuzz(func(t *testing.T, i int64, number float64, s string, b []byte, micros int64, o bool) {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return // PostgreSQL has no such text
		}
		at := time.UnixMicro(micros % (200000 * 365 * 24 * 3600 * 1000000)) // years that PostgreSQL has
		if y := at.UTC().Year(); y < -4700 || y > 290000 {
			return // PostgreSQL has no such year
		}
		ctx := within(t, 20*time.Second)
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			roundTrip(t, ctx, sqlDB, mode, i, number, s, b, at, o)
		}
	})
}

func roundTrip(t *testing.T, ctx context.Context, db *sql.DB, mode pgx.QueryExecMode, i int64, f float64, s string, b []byte, at time.Time, o bool) {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "insert into round values ($1, $2, $3, $4, $5, $6, $7)", mode, i, f, s, b, at, o, nil)
	must(t, err)
	var (
		i2   int64
		f2   float64
		s2   string
		b2   []byte
		at2  time.Time
		o2   bool
		null sql.NullInt64
	)
	must(t, tx.QueryRowContext(ctx, "select * from round", mode).Scan(&i2, &f2, &s2, &b2, &at2, &o2, &null))
	if i2 != i || !sameFloat(f2, f) || s2 != s || string(b2) != string(b) || (b == nil) != (b2 == nil) || !at2.Equal(at) || o2 != o || null.Valid {
		t.Errorf("in mode %v wrote %v %v %q %v %v %v, read %v %v %q %v %v %v %v", mode, i, f, s, b, at, o, i2, f2, s2, b2, at2, o2, null)
	}
}
