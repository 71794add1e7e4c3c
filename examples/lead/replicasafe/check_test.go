package replicasafe

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/scaleaware/scaleaware/examples/lead/migrations"
)

func TestOurMigrationsAreReplicaSafe(t *testing.T) {
	pg := postgres.Get(t)
	findings, notes, err := Check(t.Context(), pg.Primary().URL(pg.Database(t)), migrations.All(), func(int64) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if f.Accepted == "" {
			t.Error(f)
		}
	}
	if len(notes) > 0 {
		t.Errorf("not everything was seen: %v", notes)
	}
}

// base has a lead and an event for each migration that is tried, so that one does not see what another has left.
const base = `
CREATE TABLE lead (id int PRIMARY KEY, email text NOT NULL, note text, phone text);
CREATE TABLE event (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
`

// inTx makes a migration that waits for no lock for long.
func inTx(up, down string) string {
	return "-- +goose Up\nSET LOCAL lock_timeout = '1s';\n" + up + "\n-- +goose Down\n" + down + "\n"
}

// outside makes one without a transaction.
func outside(up, down string) string {
	return "-- +goose NO TRANSACTION\n-- +goose Up\n" + up + "\n-- +goose Down\n" + down + "\n"
}

// tried is a migration and what is wrong with it.
type tried struct{ name, sql, want string }

func TestBadMigrationsAreCaught(t *testing.T) {
	try(t, []tried{
		{"column_with_a_value_each", inTx("ALTER TABLE lead ADD COLUMN token uuid DEFAULT gen_random_uuid();", "ALTER TABLE lead DROP COLUMN token;"),
			"access-exclusive lead, rewrite lead"},
		{"column", inTx("ALTER TABLE lead ADD COLUMN score int;", "ALTER TABLE lead DROP COLUMN score;"), "access-exclusive lead"},
		{"type", inTx("ALTER TABLE lead ALTER COLUMN id TYPE bigint;", "ALTER TABLE lead ALTER COLUMN id TYPE int;"),
			"access-exclusive lead, column-type lead.id, index lead_pkey, rewrite lead"},
		{"unique", inTx("ALTER TABLE lead ADD CONSTRAINT lead_email UNIQUE (email);", "ALTER TABLE lead DROP CONSTRAINT lead_email;"),
			"access-exclusive lead, index lead_email"},
		{"index", inTx("CREATE INDEX lead_email ON lead (email);", "DROP INDEX lead_email;"), "index lead_email"},
		{"index_outside", outside("CREATE INDEX lead_email ON lead (email);", "DROP INDEX lead_email;"), "index lead_email, lock-timeout lead"},
		{"index_on_partitions", inTx("CREATE INDEX event_id ON event (id);", "DROP INDEX event_id;"), "index event_scratch_id_idx"},
		{"partition", inTx("CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2001-01-01') TO ('2001-02-01');", "DROP TABLE event_1;"),
			"access-exclusive event, access-exclusive event_scratch"},
		{"lock", inTx("LOCK TABLE lead IN SHARE ROW EXCLUSIVE MODE;", "SELECT 1;"), "share-lock lead"},
		{"foreign_key", inTx("CREATE TABLE lead_child (lead int REFERENCES lead);", "DROP TABLE lead_child;"), "share-lock lead"},
		{"vacuum_full", outside("VACUUM FULL lead;", "SELECT 1;"), "rewrite lead"},
		{"unlogged", inTx("CREATE UNLOGGED TABLE lead_hits (id int);", "DROP TABLE lead_hits;"), "unlogged lead_hits"},
		{"no_lock_timeout", "-- +goose Up\nALTER TABLE lead ADD COLUMN score int;\n-- +goose Down\nALTER TABLE lead DROP COLUMN score;\n",
			"access-exclusive lead, lock-timeout lead"},
		{"column_dropped", inTx("ALTER TABLE lead DROP COLUMN note;", "ALTER TABLE lead ADD COLUMN note text;"), "access-exclusive lead, column-gone lead.note"},
		{"column_renamed", inTx("ALTER TABLE lead RENAME note TO remark;", "ALTER TABLE lead RENAME remark TO note;"), "access-exclusive lead, column-gone lead.note"},
		{"column_required", inTx("ALTER TABLE lead ALTER note SET NOT NULL;", "ALTER TABLE lead ALTER note DROP NOT NULL;"),
			"access-exclusive lead, column-required lead.note"},
		{"table_renamed", inTx("ALTER TABLE lead RENAME TO prospect;", "ALTER TABLE prospect RENAME TO lead;"), "access-exclusive lead, table-gone lead"},
		{"no_way_back", "-- +goose Up\nCREATE TABLE lead_new (id int);\n", "no-down no_way_back"},
		{"half_a_way_back", inTx("CREATE TABLE lead_a (id int); CREATE TABLE IF NOT EXISTS lead_b (id int);", "DROP TABLE lead_a;"),
			"down-differs column lead_b.id integer not null false default false, down-differs table lead_b"},
		{"accepts_nothing", inTx("-- replica-safe: rewrite lead: it is small\nCREATE TABLE lead_new (id int);", "DROP TABLE lead_new;"), "unused rewrite lead"},
		{"accepts_one", inTx("-- replica-safe: access-exclusive lead: a moment\n-- replica-safe: column-gone lead.note: unused since the last release\nALTER TABLE lead DROP COLUMN note, DROP COLUMN phone;",
			"ALTER TABLE lead ADD COLUMN note text, ADD COLUMN phone text;"), "column-gone lead.phone"},
	})
}

// These end a run: what comes after them cannot be tried.
func TestMigrationsThatFailAreCaught(t *testing.T) {
	for _, c := range []tried{
		{"rows_forbid", inTx("ALTER TABLE lead ADD COLUMN rank int NOT NULL;", "ALTER TABLE lead DROP COLUMN rank;"),
			`fails partial migration error (type:sql,version:2): ERROR: column "rank" of relation "lead" contains null values (SQLSTATE 23502)`},
		{"way_back_fails", inTx("CREATE TABLE lead_a (id int);", "DROP TABLE lead_b;"),
			`down-differs partial migration error (type:sql,version:2): ERROR: table "lead_b" does not exist (SQLSTATE 42P01)`},
	} {
		try(t, []tried{c})
	}
}

func TestGoodMigrationsPass(t *testing.T) {
	try(t, []tried{
		{"index", outside("CREATE INDEX CONCURRENTLY lead_email ON lead (email);", "DROP INDEX CONCURRENTLY lead_email;"), ""},
		{"table", inTx("CREATE TABLE lead_new (id int PRIMARY KEY); CREATE INDEX lead_new_id ON lead_new (id);", "DROP TABLE lead_new;"), ""},
		{"constraint", inTx("-- replica-safe: access-exclusive lead: for a moment, no row is looked at\nALTER TABLE lead ADD CONSTRAINT has_email CHECK (email <> '') NOT VALID;",
			"ALTER TABLE lead DROP CONSTRAINT has_email;"), ""},
		{"rows", inTx("UPDATE lead SET note = 'x' WHERE id = 1;", "UPDATE lead SET note = NULL WHERE id = 1;"), ""},
		{"statistics", inTx("CREATE STATISTICS lead_both ON email, note FROM lead;", "DROP STATISTICS lead_both;"), ""},
	})
}

// try checks migrations that come after base, in one database, each with tables of its own.
func try(t *testing.T, all []tried) {
	t.Helper()
	files, tables := fstest.MapFS{}, ""
	for i, c := range all {
		files[fmt.Sprintf("%05d_%s.sql", i+2, c.name)] = &fstest.MapFile{Data: []byte(own(c.sql, i))}
		tables += own(base, i)
	}
	files["00001_base.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + tables)}
	findings, notes, err := Check(t.Context(), postgres.Get(t).Primary().URL("postgres"), migrations.Set{SQL: files}, func(version int64) bool { return version > 1 })
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	for i, c := range all {
		migration := fmt.Sprintf("%05d_%s", i+2, c.name)
		var got []string
		for _, f := range findings {
			if f.Migration == migration && f.Accepted == "" {
				got = append(got, f.Rule.Name+" "+strings.TrimPrefix(f.Object, fmt.Sprintf("%05d_", i+2)))
			}
		}
		slices.Sort(got)
		if got := strings.Join(got, ", "); got != own(c.want, i) {
			t.Errorf("%s: found\n  %s\nwant\n  %s", c.name, got, own(c.want, i))
		}
	}
	for _, f := range findings {
		if text := f.String(); !strings.Contains(text, "why ") || !strings.Contains(text, "instead ") {
			t.Errorf("a finding does not say what to do: %s", text)
		}
	}
}

// own gives a migration names that no other has.
func own(sql string, i int) string {
	return strings.NewReplacer("lead", fmt.Sprintf("lead%d", i), "event", fmt.Sprintf("event%d", i), "prospect", fmt.Sprintf("prospect%d", i)).Replace(sql)
}
