package pgwitness_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pgwitness"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/redisclient"
)

// instance is one of several processes: a switch, a database behind it, and requests.
type instance struct {
	mode *readonly.Switch
	db   *dbsplit.DB
}

const fenceLock = 20260101

// fleet starts n instances on one Redis and one PostgreSQL.
func (r *rig) fleet(n int, options readonly.Options) []*instance {
	t := r.t
	t.Helper()
	prefix := fmt.Sprintf("%s:%d:", strings.NewReplacer("/", ".", " ", "-").Replace(t.Name()), time.Now().UnixNano()) // a repeated run starts with nothing enabled
	var all []*instance
	for i := range n {
		rdb := redisclient.New(redisclient.Options(redisServer.Get(t).Addrs()...))
		t.Cleanup(func() { rdb.Close() })
		in := &instance{}
		store, err := redisstore.New(rdb, &redisstore.Options{Prefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		gate := &laterGate{}
		if in.db, err = dbsplit.Open(r.ctx, dbsplit.Nodes{Primary: r.url}, &dbsplit.Options{Gate: gate, MaxConns: 6, FenceLock: fenceLock}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(in.db.Close)
		o := options
		o.Instance = fmt.Sprint("instance ", i)
		if o.Witness, err = pgwitness.New(in.db, &pgwitness.Options{Lock: fenceLock, Timeout: 10 * time.Second}); err != nil {
			t.Fatal(err)
		}
		if in.mode, err = readonly.New(store, &o); err != nil {
			t.Fatal(err)
		}
		gate.Switch = in.mode
		in.mode.CountConnections(in.db.Writing)
		ctx, cancel := context.WithCancel(r.ctx)
		done := make(chan error, 1)
		go func() { done <- in.mode.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		all = append(all, in)
	}
	for !all[0].sees(r.ctx, n) || slices.ContainsFunc(all, (*instance).unknowing) {
		if r.ctx.Err() != nil {
			t.Fatal("the instances did not come up")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return all
}

// sees reports whether n instances have introduced themselves, which is before they know what they may do.
func (in *instance) sees(ctx context.Context, n int) bool {
	report, err := in.mode.Report(ctx)
	return err == nil && report.Instances == n
}

// unknowing reports whether the instance has not reached the store yet, and so refuses writes.
func (in *instance) unknowing() bool {
	_, known := in.mode.State()
	return !known
}

type laterGate struct{ *readonly.Switch }

// writes makes an instance write in every way until ctx ends.
func (in *instance) writes(ctx context.Context, group *sync.WaitGroup, done *atomic.Int64) {
	const insert = "insert into w (source) values ('ours')"
	handler := in.mode.Middleware(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, err := in.db.Exec(req.Context(), insert)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	ways := []func() error{
		func() error { // behind the middleware
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil))
			if w.Code != http.StatusOK {
				return errors.New("refused")
			}
			return nil
		},
		func() error { // behind nothing
			_, err := in.db.Exec(ctx, insert)
			return err
		},
		func() error { // a transaction that thinks before it writes and again before it commits
			return in.db.InTx(ctx, func(tx pgx.Tx) error {
				time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
				_, err := tx.Exec(ctx, insert)
				time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
				return err
			})
		},
		func() error { // a statement whose caller leaves: the server goes on with it, and numbers it late
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond) // each costs a connection
			hurry, cancel := context.WithTimeout(ctx, time.Duration(1+rand.IntN(5))*time.Millisecond)
			defer cancel()
			_, err := in.db.Exec(hurry, "insert into w (source) select 'ours' from pg_sleep(0.01)")
			return err
		},
	}
	for _, way := range ways {
		group.Go(func() {
			for ctx.Err() == nil {
				if way() == nil {
					done.Add(1)
				} else {
					time.Sleep(10 * time.Millisecond)
				}
			}
		})
	}
}

// foreign are programs that know nothing of the switch.
func foreign(ctx context.Context, pool *pgxpool.Pool, group *sync.WaitGroup, done *atomic.Int64) {
	for _, way := range []func() error{
		func() error {
			_, err := pool.Exec(ctx, "insert into w (source) values ('foreign')")
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			return err
		},
		func() error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				_, err := tx.Exec(ctx, "insert into w (source) values ('foreign')")
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				return err
			})
		},
		func() error { // half of them wait for somebody who decides
			name := "p" + strconv.Itoa(rand.Int())
			conn, err := pool.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			_, err = conn.Exec(ctx, "begin; insert into w (source) values ('foreign'); prepare transaction '"+name+"'")
			if err != nil {
				return err
			}
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			_, err = conn.Exec(context.WithoutCancel(ctx), "commit prepared '"+name+"'")
			time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
			return err
		},
	} {
		group.Go(func() {
			for ctx.Err() == nil {
				if way() == nil {
					done.Add(1)
				}
			}
		})
	}
}

// TestNothingIsWrittenAfterHeld toggles under load, SCALEAWARE_TOGGLES times (make soak: 1000). After each "held" no
// transaction of ours commits: none above the mark, and none below it that was not there.
func TestNothingIsWrittenAfterHeld(t *testing.T) {
	toggles := 8
	if text := os.Getenv("SCALEAWARE_TOGGLES"); text != "" {
		var err error
		if toggles, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, nil)
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(t.Context(), time.Minute+time.Duration(toggles)*5*time.Second)
	defer cancel()
	observer := r.session("observer")
	r.exec(observer, "create table w (id bigserial, source text not null, number bigint not null default pg_current_xact_id()::text::bigint)")
	fleet := r.fleet(3, readonly.Options{AckWait: 20 * time.Second})

	load, stop := context.WithCancel(r.ctx)
	var group sync.WaitGroup
	var ours, theirs atomic.Int64
	for _, in := range fleet {
		in.writes(load, &group, &ours)
	}
	foreign(load, r.pool, &group, &theirs)
	defer group.Wait()
	defer stop()

	count := func() (n int) {
		if err := observer.QueryRow(r.ctx, "select count(*) from w where source = 'ours'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var waited, most time.Duration
	held := 0
	for toggle := range toggles {
		for before := ours.Load(); ours.Load() < before+10 && r.ctx.Err() == nil; { // all write again
			time.Sleep(time.Millisecond)
		}
		on, off := fleet[toggle%3], fleet[(toggle+1)%3]
		began := time.Now()
		report, err := on.mode.Enable(r.ctx, readonly.Change{Reason: fmt.Sprint("toggle ", toggle)})
		if err != nil {
			t.Fatalf("toggle %d: Enable = %+v, %v", toggle, report, err)
		}
		if !report.Held {
			t.Fatalf("toggle %d: not held: %+v, %+v", toggle, report, report.Database)
		}
		held++
		took := time.Since(began)
		waited, most = waited+took, max(most, took)
		before := count()
		time.Sleep(20 * time.Millisecond) // for those that slipped through to commit
		var above int
		if err := observer.QueryRow(r.ctx, "select count(*) from w where source = 'ours' and number >= $1", report.Database.Fence).Scan(&above); err != nil {
			t.Fatal(err)
		}
		if after := count(); after != before || above != 0 {
			t.Fatalf("toggle %d: %d rows were written after held, %d of them above the mark %d: %+v", toggle, after-before, above, report.Database.Fence, report)
		}
		report, err = on.mode.Report(r.ctx)
		for err == nil && report.Database != nil && report.Database.Error != "" && r.ctx.Err() == nil { // the server is that busy
			report, err = on.mode.Report(r.ctx)
		}
		if err != nil || !report.Held {
			t.Fatalf("toggle %d: held no longer: %+v, %+v, %v", toggle, report, report.Database, err)
		}
		if report, err := off.mode.Disable(r.ctx, "test"); err != nil || report.Phase != readonly.PhaseOff {
			t.Fatalf("toggle %d: Disable = %+v, %v", toggle, report, err)
		}
	}
	t.Logf("%d toggles, %d held, in %v on average and %v at most; %d writes of ours and %d foreign ones", toggles, held, waited/time.Duration(toggles), most, ours.Load(), theirs.Load())
	if theirs.Load() == 0 {
		t.Error("no foreign program wrote")
	}
}

// Each phase is told, with what it waits for.
func TestPhasesAreToldLive(t *testing.T) {
	r := newRig(t, nil)
	fleet := r.fleet(2, readonly.Options{AckWait: 300 * time.Millisecond})
	a, b := fleet[0], fleet[1]
	phase := func(want string) (report readonly.Report) {
		t.Helper()
		var err error
		for r.ctx.Err() == nil {
			if report, err = a.mode.Report(r.ctx); err == nil && report.Phase == want {
				return report
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("waiting for %s: %+v, %+v, %v", want, report, report.Database, err)
		return report
	}
	tx, err := b.db.Begin(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	psql := r.session("psql")
	r.exec(psql, "begin", "insert into t values (1)")
	if _, err := a.mode.Enable(r.ctx, readonly.Change{}); err != nil {
		t.Fatal(err)
	}
	if report := phase(readonly.PhaseAcknowledged); report.Connections != 1 || report.Acknowledged != 2 || report.Held || len(report.By) != 2 {
		t.Errorf("with a transaction open: %+v", report)
	}
	if _, err := tx.Exec(r.ctx, "insert into t values (2)"); err != nil {
		t.Fatalf("a transaction that began before was not let end: %v", err)
	}
	if err := tx.Commit(r.ctx); err != nil {
		t.Fatal(err)
	}
	report := phase(readonly.PhaseDrained)
	for report.Database.Error != "" && r.ctx.Err() == nil {
		report = phase(readonly.PhaseDrained)
	}
	if d := report.Database; d.Quiet || len(d.Waiting) != 1 || d.Waiting[0].Application != "psql" || len(d.Foreign) != 1 {
		t.Errorf("with psql's transaction open: %+v", d)
	}
	r.exec(psql, "commit", "begin", "insert into t values (3)")
	report = phase(readonly.PhaseHeld)
	if d := report.Database; !d.Quiet || !report.Held || len(d.Foreign) != 1 || d.Foreign[0].Application != "psql" || d.Numbered == 0 || d.QuietSince.IsZero() {
		t.Errorf("held, while psql writes: %+v", d)
	}
	// By the same mark, although psql's present transaction began before the other instance looked.
	a = b
	if other := phase(readonly.PhaseHeld); other.Database.Fence != report.Database.Fence {
		t.Errorf("the other instance proves by %d, not by %d", other.Database.Fence, report.Database.Fence)
	}
	r.exec(psql, "commit")
}

// A writer that the fence cannot name, because it has no number yet, and that holds its lock: strict mode.
func TestLockedWriterIsAwaited(t *testing.T) {
	r := newRig(t, nil)
	fleet := r.fleet(1, readonly.Options{AckWait: 10 * time.Second})
	strict := r.session("strict program")
	r.exec(strict, "begin", fmt.Sprintf("select pg_advisory_xact_lock_shared(%d)", fenceLock))
	quick, cancel := context.WithTimeout(r.ctx, time.Second)
	defer cancel()
	report, err := fleet[0].mode.Enable(quick, readonly.Change{})
	if err != nil || report.Held {
		t.Fatalf("Enable = %+v, %v", report, err)
	}
	for report.Database == nil || !strings.Contains(report.Database.Error, "advisory lock") {
		if report, err = fleet[0].mode.Report(r.ctx); err != nil || report.Held {
			t.Fatalf("Report = %+v, %v", report, err)
		}
	}
	r.exec(strict, "insert into t values (1)", "commit")
	if report, err = fleet[0].mode.Enable(r.ctx, readonly.Change{}); err != nil || !report.Held {
		t.Fatalf("Enable = %+v, %+v, %v", report, report.Database, err)
	}
}
