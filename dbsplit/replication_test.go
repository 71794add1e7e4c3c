package dbsplit_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
)

func TestReplicationStatus(t *testing.T) {
	db, c, database := settled(t, nil)
	s := listener(t, db)
	ctx := within(t, 30*time.Second)
	exec(t, db, "create table note (n int)")
	must(t, c.Replica(0).PauseReplay(ctx))
	t.Cleanup(func() { must(t, c.Replica(0).ResumeReplay(context.Background())) })
	exec(t, db, "insert into note select generate_series(1, 1000)")
	exec(t, db, "select pg_create_physical_replication_slot('forgotten', true)")
	t.Cleanup(func() {
		must(t, c.Primary().Exec(context.Background(), "select pg_drop_replication_slot('forgotten')"))
	})
	replication := func() dbsplit.ReplicationReport {
		return decode[dbsplit.ReplicationReport](t, call(t, s, "GET", path+"replication", ""), 200)
	}
	var r dbsplit.ReplicationReport
	await(t, db, "one replica to have the log and not to replay it, the other to replay it", func() bool {
		r = replication()
		return len(r.Streams) == 2 && r.Streams[0].FlushLagBytes == 0 && r.Streams[0].BehindBytes > 1000 && r.Streams[1].BehindBytes == 0
	})
	if a := r.Streams[0]; a.State != "streaming" || a.Sync != "async" || a.SentLagBytes != 0 || a.WriteLagBytes != 0 {
		t.Errorf("%+v", a)
	}
	slots := make(map[string]dbsplit.Slot)
	for _, s := range r.Slots {
		slots[s.Name] = s
	}
	if len(slots) != 3 {
		t.Errorf("slots: %+v", r.Slots)
	}
	if f := slots["forgotten"]; f.Active || f.RetainedBytes < 0 || f.Status != "reserved" || !strings.Contains(f.Advice, "drop the slot") {
		t.Errorf("%+v", f)
	}
	if used := slots[r.Streams[0].Application]; !used.Active || used.Advice != "" {
		t.Errorf("a slot in use: %+v", used)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "slot forgotten") {
		t.Errorf("warnings: %q", r.Warnings)
	}

	guest, err := as(t, db, c, database, "stranger").Replication(ctx)
	must(t, err)
	if len(guest.Streams) != 2 || guest.Streams[0].BehindBytes != -1 || guest.Streams[0].ReplayLagSeconds != -1 || guest.Streams[0].State != "" {
		t.Errorf("without privileges: %+v", guest.Streams)
	}
	if len(guest.Slots) != 3 || guest.Unavailable != "" || len(guest.Warnings) != 2 || !strings.Contains(guest.Warnings[0], "GRANT pg_monitor") {
		t.Errorf("without privileges: %+v", guest)
	}
	wrong := open(t, dbsplit.Nodes{Primary: c.Replica(1).URL(database)}, nil)
	if r, err := wrong.Replication(ctx); err != nil || !strings.Contains(r.Unavailable, "in recovery") || r.Streams == nil {
		t.Errorf("a primary in recovery: %+v, %v", r, err)
	}
}
