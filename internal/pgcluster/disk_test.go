package pgcluster_test

import (
	"testing"
	"time"
)

// While the disk is full a long table cannot grow, and others are written; a fuller one ends the server, whose start makes room.
func TestFillDisk(t *testing.T) {
	c := start(t, nil)
	primary := c.Primary()
	database := c.Database(t)
	conn := connect(t, primary, database)
	execute(t, conn, "create table long (t text); alter table long alter t set storage plain; create table short (n int)")
	grow := func() error {
		_, err := conn.Exec(within(t, 30*time.Second), "insert into long select repeat('x', 4000) from generate_series(1, 5000)")
		return err
	}
	must(t, grow())
	must(t, primary.FillDisk(16<<20))
	if err := grow(); sqlState(err) != "XX000" {
		t.Errorf("a table of 20 MB grew on a full disk: %v", err)
	}
	execute(t, conn, "insert into short values (1)")
	must(t, primary.FreeDisk())
	must(t, grow())

	must(t, primary.FillDisk(1))
	if _, err := conn.Exec(within(t, 30*time.Second), "insert into short values (2)"); err == nil {
		t.Error("a commit on a disk without room for the log")
	}
	primary.Kill()
	must(t, primary.Start(within(t, 30*time.Second)))
	conn = connect(t, primary, database)
	execute(t, conn, "insert into short values (3)")
	if n := get[int](t, conn, "select count(*) from short where n <> 2"); n != 2 {
		t.Errorf("%d rows that were committed, want 2", n)
	}
}
