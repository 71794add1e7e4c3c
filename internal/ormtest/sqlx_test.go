package ormtest

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"
)

type sqlxNote struct {
	ID   int64  `db:"id"`
	Text string `db:"text"`
}

func TestSqlx(t *testing.T) {
	sqlDB, replica := settled(t)
	db := sqlx.NewDb(sqlDB, "pgx")
	conforms(t, replica, mapper{
		migrate: func(ctx context.Context) error {
			_, err := db.ExecContext(ctx, "create table notes (id bigserial primary key, text text not null)")
			return err
		},
		create: func(ctx context.Context, text string) error {
			_, err := db.NamedExecContext(ctx, "insert into notes (text) values (:text)", sqlxNote{Text: text})
			return err
		},
		read: func(ctx context.Context) (texts []string, onReplica bool, err error) {
			tx, err := db.BeginTxx(ctx, readOnly)
			if err != nil {
				return nil, false, err
			}
			defer tx.Rollback()
			var notes []sqlxNote
			if err := tx.SelectContext(ctx, &notes, "select * from notes where id > $1 order by id", 0); err != nil {
				return nil, false, err
			}
			for _, n := range notes {
				texts = append(texts, n.Text)
			}
			return texts, onReplica, tx.GetContext(ctx, &onReplica, "select pg_is_in_recovery()")
		},
		misplace: func(ctx context.Context) error {
			tx, err := db.BeginTxx(ctx, readOnly)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			_, err = tx.ExecContext(ctx, "insert into notes (text) values ('misplaced')")
			return err
		},
	})
}
