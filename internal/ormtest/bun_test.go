package ormtest

import (
	"context"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

type bunNote struct {
	bun.BaseModel `bun:"table:notes"`

	ID   int64    `bun:",pk,autoincrement"`
	Text string   `bun:",notnull"`
	Tags []string `bun:",array"`
}

func TestBun(t *testing.T) {
	sqlDB, replica := settled(t)
	db := bun.NewDB(sqlDB, pgdialect.New())
	create := func(ctx context.Context, in bun.IDB, text string) error {
		_, err := in.NewInsert().Model(&bunNote{Text: text, Tags: []string{text, "a,b"}}).Exec(ctx)
		return err
	}
	conforms(t, replica, mapper{
		migrate: func(ctx context.Context) error {
			_, err := db.NewCreateTable().Model((*bunNote)(nil)).Exec(ctx)
			return err
		},
		create: func(ctx context.Context, text string) error { return create(ctx, db, text) },
		read: func(ctx context.Context) (texts []string, onReplica bool, err error) {
			err = db.RunInTx(ctx, readOnly, func(ctx context.Context, tx bun.Tx) error {
				var notes []bunNote
				if err := tx.NewSelect().Model(&notes).Order("id").Scan(ctx); err != nil {
					return err
				}
				for _, n := range notes {
					if len(n.Tags) != 2 || n.Tags[0] != n.Text || n.Tags[1] != "a,b" {
						t.Errorf("tags %q", n.Tags)
					}
					texts = append(texts, n.Text)
				}
				return tx.NewRaw("select pg_is_in_recovery()").Scan(ctx, &onReplica)
			})
			return texts, onReplica, err
		},
		misplace: func(ctx context.Context) error {
			return db.RunInTx(ctx, readOnly, func(ctx context.Context, tx bun.Tx) error { return create(ctx, tx, "misplaced") })
		},
	})
}
