package ormtest

import (
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/scaleaware/scaleaware"
)

var migrations = fstest.MapFS{
	"00001_notes.sql": {Data: []byte(`-- +goose Up
create table notes (id int primary key, text text not null);
-- +goose StatementBegin
create function twice(int) returns int language plpgsql as $$ begin return 2 * $1; end $$;
-- +goose StatementEnd
insert into notes values (1, 'first');
-- +goose Down
drop function twice;
drop table notes;
`)},
	"00002_index.sql": {Data: []byte(`-- +goose NO TRANSACTION
-- +goose Up
create index concurrently notes_text on notes (text);
-- +goose Down
drop index concurrently notes_text;
`)},
}

// The lock is of a session, so this tells whether goose's sql.Conn is one.
func TestGoose(t *testing.T) {
	sqlDB, replica := settled(t)
	locker, err := lock.NewPostgresSessionLocker()
	must(t, err)
	p, err := goose.NewProvider(goose.DialectPostgres, sqlDB, migrations, goose.WithSessionLocker(locker))
	must(t, err)
	must(t, replica.PauseReplay(within(t)))
	defer func() { must(t, replica.ResumeReplay(t.Context())) }()

	ctx, _ := scaleaware.WithWatermark(within(t))
	done, err := p.Up(ctx)
	must(t, err)
	if len(done) != 2 {
		t.Errorf("%d migrations", len(done))
	}
	tx, err := sqlDB.BeginTx(ctx, readOnly)
	must(t, err)
	var text string
	must(t, tx.QueryRowContext(ctx, "select text from notes where id = 1").Scan(&text))
	must(t, tx.Rollback())
	tx, err = sqlDB.BeginTx(within(t), readOnly)
	must(t, err)
	if err := tx.QueryRowContext(ctx, "select text from notes").Scan(&text); err == nil {
		t.Error("the replica has the table: it is no test")
	}
	must(t, tx.Rollback())
	_, err = p.DownTo(ctx, 0)
	must(t, err)
	version, err := p.GetDBVersion(ctx)
	must(t, err)
	var left, locks int
	must(t, sqlDB.QueryRowContext(ctx, "select count(*) from pg_class where relname in ('notes', 'notes_text')").Scan(&left))
	must(t, sqlDB.QueryRowContext(ctx, "select count(*) from pg_locks where locktype = 'advisory'").Scan(&locks))
	if version != 0 || left != 0 || locks != 0 {
		t.Errorf("after down: version %d, %d relations and %d locks", version, left, locks)
	}
}
