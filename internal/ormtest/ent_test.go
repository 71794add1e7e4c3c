package ormtest

import (
	"context"
	stdsql "database/sql"
	"testing"

	"entgo.io/ent/dialect"
	"entgo.io/ent/dialect/sql"
	"entgo.io/ent/dialect/sql/schema"
	"entgo.io/ent/dialect/sql/sqlgraph"
	"entgo.io/ent/schema/field"
)

var (
	entColumns = []*schema.Column{{Name: "id", Type: field.TypeInt, Increment: true}, {Name: "text", Type: field.TypeString}}
	entTable   = &schema.Table{Name: "notes", Columns: entColumns, PrimaryKey: entColumns[:1]}
)

func entID() *sqlgraph.FieldSpec { return sqlgraph.NewFieldSpec("id", field.TypeInt) }

// entNotes and entCreate are what ent generates for a client's methods, without the three thousand lines around.
func entNotes(ctx context.Context, drv dialect.Driver) (texts []string, err error) {
	spec := sqlgraph.NewQuerySpec("notes", []string{"id", "text"}, entID())
	spec.Order = func(s *sql.Selector) { s.OrderBy(s.C("id")) }
	spec.ScanValues = func([]string) ([]any, error) { return []any{new(stdsql.NullInt64), new(stdsql.NullString)}, nil }
	spec.Assign = func(_ []string, values []any) error {
		texts = append(texts, values[1].(*stdsql.NullString).String)
		return nil
	}
	return texts, sqlgraph.QueryNodes(ctx, drv, spec)
}

func entCreate(ctx context.Context, drv dialect.Driver, text string) error {
	spec := sqlgraph.NewCreateSpec("notes", entID())
	spec.SetField("text", field.TypeString, text)
	return sqlgraph.CreateNode(ctx, drv, spec)
}

// entTx makes a transaction pass for a driver, as a generated client's does.
type entTx struct{ inner dialect.Tx }

func (tx entTx) Exec(ctx context.Context, query string, args, v any) error {
	return tx.inner.Exec(ctx, query, args, v)
}

func (tx entTx) Query(ctx context.Context, query string, args, v any) error {
	return tx.inner.Query(ctx, query, args, v)
}

func (tx entTx) Tx(context.Context) (dialect.Tx, error) { return dialect.NopTx(tx), nil }
func (entTx) Close() error                              { return nil }
func (entTx) Dialect() string                           { return dialect.Postgres }

func TestEnt(t *testing.T) {
	sqlDB, replica := settled(t)
	drv := sql.OpenDB(dialect.Postgres, sqlDB)
	inRead := func(ctx context.Context, f func(drv dialect.Driver) error) error {
		tx, err := drv.BeginTx(ctx, readOnly)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		return f(entTx{tx})
	}
	conforms(t, replica, mapper{
		migrate: func(ctx context.Context) error {
			m, err := schema.NewMigrate(drv)
			if err != nil {
				return err
			}
			return m.Create(ctx, entTable)
		},
		create: func(ctx context.Context, text string) error { return entCreate(ctx, drv, text) },
		read: func(ctx context.Context) (texts []string, onReplica bool, err error) {
			err = inRead(ctx, func(drv dialect.Driver) error {
				if texts, err = entNotes(ctx, drv); err != nil {
					return err
				}
				var rows sql.Rows
				if err := drv.Query(ctx, "select pg_is_in_recovery()", []any{}, &rows); err != nil {
					return err
				}
				defer rows.Close()
				onReplica, err = sql.ScanBool(rows)
				return err
			})
			return texts, onReplica, err
		},
		misplace: func(ctx context.Context) error {
			return inRead(ctx, func(drv dialect.Driver) error { return entCreate(ctx, drv, "misplaced") })
		},
	})
}
