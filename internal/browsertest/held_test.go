package browsertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pgwitness"
)

var databases = pgcluster.NewShared(nil)

// The page follows the proof from the button to "held": the other instance is still to obey, its job still to end, a
// transaction of nobody's still to be committed, and each is seen to be what is waited for.
func TestProofComesToHeld(t *testing.T) {
	cluster := databases.Get(t)
	primary, database := cluster.Primary(), cluster.Database(t)
	pool, err := pgxpool.New(t.Context(), primary.URL(database))
	must(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), "create table notes (n int)")
	must(t, err)
	witness, err := pgwitness.New(pool, nil)
	must(t, err)

	store := readonly.NewMemory()
	s, p := serve(t, options{store: store, mode: readonly.Options{Witness: witness}}), open(t)
	deaf := &deafStore{Store: store}
	other, err := readonly.New(deaf, &readonly.Options{Instance: "two", Poll: 20 * time.Millisecond, Witness: witness})
	must(t, err)
	var jobs atomic.Int64
	jobs.Store(1)
	other.CountJobs(func() int { return int(jobs.Load()) })
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = other.Run(ctx) })
	t.Cleanup(func() { cancel(); group.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		err := other.Ready(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	conn, err := primary.Connect(t.Context(), database)
	must(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	for _, sql := range []string{"begin", "insert into notes values (1)"} {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}

	const steps = `[...document.querySelectorAll(".proof li")].map((e) => e.className + " " + e.querySelector("strong").textContent).join(", ")`
	const text = `document.querySelector(".proof li.current")?.textContent`
	p.visit(s.URL + "/")
	deaf.deaf.Store(true)
	p.do(chromedp.Click("#read-only-on"), chromedp.SendKeys("#confirm-field", "proof"), chromedp.Click("#confirm-yes"))
	p.await("the other instance to be waited for", text+`?.includes("1 of 2 instances obey")`)
	p.sure("so far announced", steps+` === "done announced, current acknowledged, ahead drained, ahead held"`)

	deaf.deaf.Store(false)
	p.await("its job to be waited for", text+`?.includes("1 job still in flight")`)
	p.sure("so far acknowledged", steps+` === "done announced, done acknowledged, current drained, ahead held"`)

	jobs.Store(0)
	p.await("the transaction to be waited for", text+`?.includes("waits for ")`)
	p.sure("so far drained", steps+` === "done announced, done acknowledged, done drained, current held"`)
	p.sure("not proven", `document.querySelector('.proof[data-proven="false"]')`)

	_, err = conn.Exec(t.Context(), "commit")
	must(t, err)
	p.await("the proof", `document.querySelector('.proof[data-proven="true"]')`)
	p.sure("all of it", steps+` === "done announced, done acknowledged, done drained, done held"`)
	if report, err := s.mode.Report(p.ctx); err != nil || !report.Held {
		t.Errorf("the page says held, the switch %+v: %v", report, err)
	}
}

// deafStore keeps from an instance, while it is deaf, that anything has changed.
type deafStore struct {
	readonly.Store
	deaf atomic.Bool
	old  atomic.Pointer[readonly.State]
}

func (d *deafStore) Load(ctx context.Context) (readonly.State, error) {
	if old := d.old.Load(); old != nil && d.deaf.Load() {
		return *old, nil
	}
	state, err := d.Store.Load(ctx)
	if err == nil && !d.deaf.Load() {
		d.old.Store(&state)
	}
	return state, err
}

func (d *deafStore) Watch(ctx context.Context, changed func()) error {
	return d.Store.Watch(ctx, func() {
		if !d.deaf.Load() {
			changed()
		}
	})
}
