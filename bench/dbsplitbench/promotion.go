package dbsplitbench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

const (
	writeEvery   = 20 * time.Millisecond
	writeTimeout = time.Second
	writesBefore = 500 * time.Millisecond
	// giveUp is how long after the promoted server accepts writes its clients are waited for.
	giveUp = 10 * time.Second
)

const promotionNote = "All write 50 times a second, each write with a deadline of 1 s, while a fresh cluster's primary is lost and its replica promoted. " +
	"dbsplit has its defaults. pgxpool has both hosts, target_session_attrs=read-write, and connect_timeout=2, as long as dbsplit's; dbresolver has a database/sql " +
	"pool with the same connection string as its primary, since with a plain one it would never come back. Medians of several promotions (lowest to highest)."

// window is how one client fared in one promotion. Times are infinite when it did not come back before giveUp.
type window struct {
	failed int
	after  float64 // ns from when the promoted server accepted a write to the client's first good one
	down   float64 // ns from the first error to the first good write
}

// writer is one client.
type writer struct {
	name  string
	write func(ctx context.Context) (port int, err error)
	close func()

	mu     sync.Mutex
	failed int
	first  time.Time // error
	good   time.Time // answer of the promoted server
	last   error
}

func (l *lab) promotion(ctx context.Context) (rows []report.Row, err error) {
	for _, v := range []struct {
		what      string
		times     int
		blackhole bool
		limit     time.Duration
	}{
		{"primary stopped", 5, false, 300 * time.Millisecond},
		{"primary black-holed", 3, true, 2 * time.Second},
	} {
		windows := make(map[string][]window)
		for range l.opts.times(v.times) {
			if err := promoteOnce(ctx, v.blackhole, windows); err != nil {
				return nil, fmt.Errorf("%s: %w", v.what, err)
			}
		}
		ours := windows["dbsplit"]
		for _, peer := range []string{"pgxpool", "dbresolver"} {
			theirs := windows[peer]
			for _, m := range []struct {
				what  string
				of    func(window) float64
				limit time.Duration
				text  func(float64) string
			}{
				{"first good write after the promoted server accepts", func(w window) float64 { return w.after }, v.limit, report.Duration},
				{"first error to first good write", func(w window) float64 { return w.down }, 0, report.Duration},
				{"failed writes", func(w window) float64 { return float64(w.failed) }, 0, report.Count},
			} {
				a, b := figures(ours, m.of), figures(theirs, m.of)
				row := report.Row{
					What: fmt.Sprintf("%s, %d times: %s, peer %s", v.what, len(a), m.what, peer),
					Peer: span(b, m.text), Ours: span(a, m.text), Ratio: ratioOf(median(a), median(b)),
				}
				if m.limit > 0 {
					row.Goal = "≤ " + report.Since(m.limit)
					row.Met = report.AtMost(median(a), float64(m.limit))
				}
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

func figures(windows []window, of func(window) float64) []float64 {
	var all []float64
	for _, w := range windows {
		all = append(all, of(w))
	}
	slices.Sort(all)
	return all
}

// median is the middle one, of an even number the worse one.
func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

func span(sorted []float64, text func(float64) string) string {
	write := func(v float64) string {
		if math.IsInf(v, 1) {
			return "not within " + report.Since(giveUp)
		}
		return text(v)
	}
	return fmt.Sprintf("%s (%s to %s)", write(median(sorted)), write(sorted[0]), write(sorted[len(sorted)-1]))
}

func ratioOf(ours, peer float64) string {
	if peer == 0 || math.IsInf(peer, 1) || math.IsInf(ours, 1) {
		return ""
	}
	return fmt.Sprintf("%.2f", ours/peer)
}

// promoteOnce loses a primary, and adds each client's window.
func promoteOnce(ctx context.Context, blackhole bool, windows map[string][]window) (err error) {
	c, err := startCluster(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	proxy, err := faultconn.New(c.Primary().Addr())
	if err != nil {
		return err
	}
	old := c.Primary().Addr()
	if blackhole {
		old = proxy.Addr()
	}
	writers, err := openWriters(ctx, old, c.Replica(0).Addr())
	defer func() {
		proxy.Close() // first: it ends connections that would be waited for
		for _, w := range writers {
			w.close()
		}
	}()
	if err != nil {
		return err
	}
	promoted, err := serverPort(c.Replica(0).Addr())
	if err != nil {
		return err
	}
	loops, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, w := range writers {
		wg.Go(func() { w.loop(loops, promoted) })
	}
	time.Sleep(writesBefore)
	for _, w := range writers {
		if w.failed > 0 {
			return fmt.Errorf("%s fails before the primary does", w.name)
		}
	}

	accepted, err := lose(ctx, c, proxy, blackhole)
	if err != nil {
		return err
	}
	for deadline := accepted.Add(giveUp); time.Now().Before(deadline) && !allGood(writers); {
		time.Sleep(5 * time.Millisecond)
	}
	for _, w := range writers {
		result := w.window(accepted)
		if math.IsInf(result.after, 1) {
			fmt.Fprintf(os.Stderr, "Promotion: %s did not come back; its last error: %v\n", w.name, w.last)
		}
		windows[w.name] = append(windows[w.name], result)
	}
	return nil
}

// lose takes the primary away and promotes the replica. It returns when that has accepted a write, and the moment.
func lose(ctx context.Context, c *pgcluster.Cluster, proxy *faultconn.Proxy, blackhole bool) (accepted time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	next := c.Replica(0)
	conn, err := next.Connect(ctx, database)
	if err != nil {
		return accepted, err
	}
	defer conn.Close(ctx)
	if blackhole {
		proxy.Blackhole(faultconn.Both)
	} else if err := c.Primary().Stop(ctx); err != nil {
		return accepted, err
	}
	if err := next.Exec(ctx, "select pg_promote(wait => false)"); err != nil {
		return accepted, err
	}
	for {
		_, err := conn.Exec(ctx, sqlInsert)
		if err == nil {
			return time.Now(), nil
		}
		if ctx.Err() != nil {
			return accepted, fmt.Errorf("the promoted server takes no writes: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}

const sqlPort = "insert into notes (n) values (1) returning inet_server_port()"

func openWriters(ctx context.Context, old, next string) (writers []*writer, err error) {
	db, stop, err := openSplit(ctx, &dbsplit.Options{}, old, next)
	if err != nil {
		return nil, err
	}
	port := func(row interface{ Scan(...any) error }) (n int, err error) { return n, row.Scan(&n) }
	writers = append(writers, &writer{
		name: "dbsplit", close: stop,
		write: func(ctx context.Context) (int, error) { return port(pgx.Row(db.QueryRow(ctx, sqlPort))) },
	})
	u := url.URL{
		Scheme: "postgres", User: url.User("postgres"), Host: old + "," + next, Path: "/" + database,
		RawQuery: "sslmode=disable&target_session_attrs=read-write&connect_timeout=2",
	}
	pool, err := openPool(ctx, u.String())
	if err != nil {
		return writers, err
	}
	writers = append(writers, &writer{
		name: "pgxpool", close: pool.Close,
		write: func(ctx context.Context) (int, error) { return port(pool.QueryRow(ctx, sqlPort)) },
	})
	resolver, err := openResolver(u.String(), address(next))
	if err != nil {
		return writers, err
	}
	writers = append(writers, &writer{
		name: "dbresolver", close: func() { resolver.Close() },
		write: func(ctx context.Context) (int, error) { return port(resolver.QueryRowContext(ctx, sqlPort)) },
	})
	return writers, nil
}

// loop writes at a steady rate, whether or not earlier writes have been answered.
func (w *writer) loop(ctx context.Context, promoted int) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wg.Go(func() {
			one, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
			defer cancel()
			port, err := w.write(one)
			w.note(port == promoted, err)
		})
	}
}

func (w *writer) note(promoted bool, err error) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil:
		w.failed++
		w.last = err
		if w.first.IsZero() {
			w.first = now
		}
	case promoted && w.good.IsZero():
		w.good = now
	}
}

func (w *writer) window(accepted time.Time) window {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.good.IsZero() {
		return window{failed: w.failed, after: math.Inf(1), down: math.Inf(1)}
	}
	result := window{failed: w.failed, after: max(0, float64(w.good.Sub(accepted)))}
	if !w.first.IsZero() {
		result.down = max(0, float64(w.good.Sub(w.first)))
	}
	return result
}

func allGood(writers []*writer) bool {
	for _, w := range writers {
		w.mu.Lock()
		good := !w.good.IsZero()
		w.mu.Unlock()
		if !good {
			return false
		}
	}
	return true
}
