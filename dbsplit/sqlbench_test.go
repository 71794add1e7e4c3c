package dbsplit_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// BenchmarkSQL compares the connector with pgx's own on the same server.
func BenchmarkSQL(b *testing.B) {
	c := shared.Get(b)
	db := open(b, dbsplit.Nodes{Primary: c.Primary().URL(c.Database(b))}, nil)
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, db.Config().ConnString())
	must(b, err)
	b.Cleanup(pool.Close)
	theirs := stdlib.OpenDBFromPool(pool)
	b.Cleanup(func() { theirs.Close() })
	for name, s := range map[string]*sql.DB{"stdlib": theirs, "dbsplit": openSQL(b, db.Connector())} {
		b.Run("Query/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var n int64
				var word string
				if err := s.QueryRowContext(ctx, "select $1::int8, 'word'", 7).Scan(&n, &word); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("Rows/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rows, err := s.QueryContext(ctx, "select n, 'word' from generate_series(1, 100) n")
				if err != nil {
					b.Fatal(err)
				}
				for rows.Next() {
					var n int64
					var word string
					if err := rows.Scan(&n, &word); err != nil {
						b.Fatal(err)
					}
				}
				rows.Close()
			}
		})
		b.Run("Exec/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.ExecContext(ctx, "select $1::int8", 7); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
