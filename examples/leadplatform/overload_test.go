package main_test

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What the database bears hardly depends on the machine here: each instance has few connections, and a write takes time.
const (
	overloadPool  = "2"
	overloadWrite = `CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$;
		CREATE TRIGGER slowly BEFORE INSERT ON "Lead" FOR EACH ROW EXECUTE FUNCTION slowly()`
)

// TestPlatformOverload sends ten times what the platform can bear, for as long as SCALEAWARE_OVERLOAD says, and then what
// it can. Then it sends half too much, and the database hangs meanwhile. Each time what can be served must be, and the
// platform must be well again soon after, by itself.
func TestPlatformOverload(t *testing.T) {
	text := os.Getenv("SCALEAWARE_OVERLOAD")
	if text == "" {
		t.Skip("set SCALEAWARE_OVERLOAD to a duration, as make overload does")
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_POOL_MIN", overloadPool)
	t.Setenv("DATABASE_POOL_MAX", overloadPool)
	p := start(t, "-rate", "0")
	s := p.state(t)
	conn, err := pgx.Connect(t.Context(), s.Primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run(overloadWrite)
	c := newCrowd(t, s.API)

	peak := c.saturate(18, 10*time.Second)
	t.Logf("peak goodput: %.0f writes/s, answered within %v", peak, patience)
	bearable := .7 * peak

	before := c.offer(bearable, 10*time.Second)
	t.Logf("%4.0f/s, bearable:   %v", bearable, before)
	if got := before.share(); got < .99 {
		t.Errorf("%.1f %% of what can be borne was served: this machine is too busy for the test", 100*got)
	}
	over := c.offer(10*peak, length)
	t.Logf("%4.0f/s, ten times:  %v", 10*peak, over)
	after := c.offer(bearable, 20*time.Second)
	t.Logf("%4.0f/s, afterwards: %v", bearable, after)
	if got := over.goodput() / peak; got < .8 {
		t.Errorf("goodput under overload was %.0f %% of the peak's, want 80 %%", 100*got)
	}
	recovered := after.wellFrom(.95)
	t.Logf("recovered after %v", recovered)
	if recovered > 5*time.Second {
		t.Errorf("well again after %v, want 5s", recovered)
	}

	// A fault while there is too much to do must not leave a state that outlives it.
	steady := c.offer(1.5*peak, 10*time.Second)
	t.Logf("%4.0f/s, half more:  %v", 1.5*peak, steady)
	run(`BEGIN; LOCK TABLE "Lead"`)
	hanging := c.offer(1.5*peak, length/2)
	t.Logf("%4.0f/s, it hangs:   %v", 1.5*peak, hanging)
	run(`ROLLBACK`)
	healed := c.offer(1.5*peak, 20*time.Second)
	t.Logf("%4.0f/s, healed:     %v", 1.5*peak, healed)
	if got := hanging.goodput(); got > .1*peak {
		t.Errorf("%.0f writes/s while the table was locked: there was no fault", got)
	}
	// Both are of some three hundred writes. A state that outlived the fault would leave a fraction of them.
	if got := healed.goodputFrom(10*time.Second) / steady.goodput(); got < .9 {
		t.Errorf("goodput ten seconds after the fault is %.0f %% of what it was, want 90 %%", 100*got)
	}

	// Nothing acknowledged is lost, and what was refused was not written.
	acknowledged, uncertain := c.ledger()
	if stored := query(t, s.Primary, `SELECT count(*)::text FROM "Lead" WHERE id = ANY($1::uuid[])`, acknowledged); stored != itoa(len(acknowledged)) {
		t.Errorf("%d writes were acknowledged, %s are there", len(acknowledged), stored)
	}
	all := atoi(t, query(t, s.Primary, `SELECT count(*)::text FROM "Lead" WHERE email = $1`, c.email()))
	if all > len(acknowledged)+uncertain {
		t.Errorf("%d writes are there, of %d acknowledged and %d without an answer in time", all, len(acknowledged), uncertain)
	}
	t.Logf("%d writes acknowledged, %d without an answer in time, %d stored", len(acknowledged), uncertain, all)
	if status, _ := c.people[0].do(http.MethodGet, s.API+"/api/v1/me", nil); status != http.StatusOK {
		t.Errorf("/api/v1/me is %d in the end", status)
	}
}
