package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/redisclient"
)

const (
	writerProcesses = 4
	writersEach     = 8                     // so 32 at once
	writerEnv       = "SESSION_TEST_WRITER" // address, prefix, cookie, number
)

// writesEach is how often each writer writes: SCALEAWARE_SESSION_WRITES by all of them, 1,000 by default.
func writesEach() int {
	total, err := strconv.Atoi(os.Getenv("SCALEAWARE_SESSION_WRITES"))
	if err != nil {
		total = 1000
	}
	return (total + writerProcesses*writersEach - 1) / (writerProcesses * writersEach)
}

// A process of its own per group of writers; each writer counts under a key of its own in the one session that all share,
// and puts and removes another. A lost write is a count that went back.
func TestParallelWritersOfManyProcessesLoseNothing(t *testing.T) {
	a := serve(t, manager(t, client(t, single), Options{}))
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	b.want(a, "put?key=untouched&value=v", "put")
	addr := single.Get(t).Addrs()[0]
	var all sync.WaitGroup
	begun := time.Now()
	for n := range writerProcesses {
		all.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), writerEnv+"="+strings.Join([]string{addr, a.opts.Prefix, b.cookie(a), fmt.Sprint(n)}, " "))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("writer: %v\n%s", err, out)
			}
			t.Logf("process %d: %s", n, out)
		})
	}
	all.Wait()
	t.Logf("%d writes by %d writers in %v", writerProcesses*writersEach*writesEach(), writerProcesses*writersEach, time.Since(begun))
	for n := range writerProcesses * writersEach {
		b.want(a, fmt.Sprint("get?key=count", n), fmt.Sprint(writesEach()))
		b.want(a, fmt.Sprint("get?key=scratch", n), "")
	}
	b.want(a, "get?key=untouched", "v")
	b.want(a, "who", "ada")
}

// writeMany is the main of such a process.
func writeMany(spec string) error {
	f := strings.Fields(spec)
	rdb := redisclient.New(redisclient.Options(f[0]))
	defer rdb.Close()
	m, err := New(rdb, &Options{Insecure: true, Prefix: f[1], StoreTimeout: 30 * time.Second})
	if err != nil {
		return err
	}
	var number int
	if _, err := fmt.Sscan(f[3], &number); err != nil {
		return err
	}
	var mu sync.Mutex
	var took []time.Duration
	errs := make([]error, writersEach)
	var all sync.WaitGroup
	for i := range writersEach {
		all.Go(func() {
			me := number*writersEach + i
			for n := 1; n <= writesEach(); n++ {
				begun := time.Now()
				if errs[i] = write(m, f[2], me, n); errs[i] != nil {
					return
				}
				mu.Lock()
				took = append(took, time.Since(begun))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	fmt.Printf("p50 %v, p99 %v, %d conflicts", took[len(took)/2], took[len(took)*99/100], m.counted("commit", "conflict"))
	return errors.Join(errs...)
}

func write(m *Manager, cookie string, me, n int) error {
	count, scratch := fmt.Sprint("count", me), fmt.Sprint("scratch", me)
	var err error
	handler := m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s := From(r.Context())
		if got := s.String(count); n > 1 && got != fmt.Sprint(n-1) {
			err = fmt.Errorf("writer %d has written %d and reads %q", me, n-1, got)
		}
		err = errors.Join(err, s.Put(count, fmt.Sprint(n)))
		if n%2 == 1 && n < writesEach() {
			err = errors.Join(err, s.Put(scratch, "x"))
		} else {
			err = errors.Join(err, s.Remove(scratch))
		}
	}))
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Cookie", m.SCS().Cookie.Name+"="+cookie)
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("writer %d: %d %s", me, rec.Code, rec.Body))
	}
	return err
}

// Slots move and masters change places, without a loss of Redis's own, while a session is written. What was acknowledged is there.
func TestAcknowledgedWritesSurviveMovesOfTheirSlot(t *testing.T) {
	c := cluster.Get(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.WaitHealthy(ctx); err != nil {
		t.Fatal(err)
	}
	a := serve(t, manager(t, client(t, cluster), Options{StoreTimeout: 5 * time.Second}))
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	key := a.keyOf(b.cookie(a))
	slot, err := c.Slot(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	acknowledged, refused := 0, 0
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			resp, body := b.response(a, fmt.Sprint("put?key=n&value=", n))
			switch {
			case resp.StatusCode == http.StatusOK && body == "put":
				acknowledged = n
			case resp.StatusCode == http.StatusServiceUnavailable:
				refused++
			default:
				t.Errorf("answer %d %q", resp.StatusCode, body)
			}
			var stored int
			if got := b.call(a, "get?key=n"); !strings.Contains(got, "503") {
				_, _ = fmt.Sscan(got, &stored)
				if stored < acknowledged {
					t.Errorf("%d was acknowledged, %q is stored", acknowledged, got)
				}
			}
		}
	}()
	masters, err := c.Masters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range append(masters, masters[0]) {
		if err := c.MigrateSlot(ctx, slot, to); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		master, err := c.MasterFor(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		replica, err := c.ReplicaOf(ctx, master)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(replica.Failover(ctx), c.WaitHealthy(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	t.Logf("%d acknowledged, %d refused", acknowledged, refused)
	if acknowledged == 0 {
		t.Error("nothing was acknowledged")
	}
	b.want(a, "who", "ada")
}

// Redis throws away what it likes. Sessions may be lost, nobody gets in who was logged out, and nobody becomes somebody else.
func TestEvictionLetsNobodyIn(t *testing.T) {
	node := single.Get(t).Nodes()[0]
	rdb := client(t, single)
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	a := serve(t, manager(t, rdb, Options{Strict: true}))
	var out, in []*browser
	for i := range 40 {
		b := newBrowser(t)
		b.want(a, fmt.Sprint("login?as=user", i), "welcome")
		if i%2 == 0 {
			in = append(in, b)
			continue
		}
		out = append(out, b.with(a, b.cookie(a)))
		if i%4 == 1 {
			b.want(a, "logout", "bye")
		} else if _, err := a.LogoutEverywhere(t.Context(), fmt.Sprint("user", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.SetMaxMemory(t.Context(), 3<<20, "allkeys-lru"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(node.SetMaxMemory(context.Background(), 0, "noeviction"), rdb.FlushAll(context.Background()).Err()); err != nil {
			t.Error(err)
		}
	}()
	lost := 0
	for round := range 6 {
		for i := range 300 {
			if err := rdb.Set(t.Context(), fmt.Sprintf("%sflood:%d:%d", t.Name(), round, i), strings.Repeat("x", 4096), 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range out {
			b.want(a, "who", "")
		}
		for i, b := range in {
			switch got := b.call(a, "who"); got {
			case fmt.Sprint("user", 2*i):
			case "":
				lost++
			default:
				t.Errorf("user%d is %q", 2*i, got)
			}
		}
	}
	t.Logf("%d times of %d a user was logged out by the eviction", lost, 6*len(in))
	if keys := rdb.DBSize(t.Context()).Val(); keys > 1500 {
		t.Errorf("%d keys: nothing was evicted", keys)
	}
}
