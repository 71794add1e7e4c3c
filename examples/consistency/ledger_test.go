package consistency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/internal/history"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// TestLedger writes rows with unique keys while connections are cut, answers are lost, the primary dies or freezes, a replica
// is promoted, and the old primary comes back. Commits wait for both replicas, so that the promotion loses none of them.
func TestLedger(t *testing.T) {
	for name, fault := range map[string]func(*pgcluster.Server){
		"killed": (*pgcluster.Server).Kill,
		"frozen": (*pgcluster.Server).Freeze,
	} {
		t.Run(name, func(t *testing.T) { runLedger(t, fault) })
	}
}

// books are what clients of a failing database write down.
type books struct {
	f        *fleet
	ledger   *history.Ledger
	counters *history.Checker
	rows     atomic.Int64 // acknowledged
	group    sync.WaitGroup
	stop     context.CancelFunc
}

func runLedger(t *testing.T, fault func(*pgcluster.Server)) {
	ctx := t.Context()
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 2, Synchronous: 2})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	const database, clients = "postgres", 8
	counters(t, c, database, clients)
	nodes := nodesOf(c, database)
	proxies := map[*pgcluster.Server]*faultconn.Proxy{}
	for i, s := range c.Servers() {
		p, err := faultconn.New(s.Addr())
		must(t, err)
		t.Cleanup(func() { p.Close() })
		proxies[s] = p
		through := strings.Replace(s.URL(database), s.Addr(), p.Addr(), 1)
		if i == 0 {
			nodes.Primary = through
		} else {
			nodes.Replicas[i-1] = through
		}
	}
	f := startFleet(t, instanceConfig{Nodes: nodes, Monotonic: true, Patience: 5 * time.Second, ProbeTimeout: 2 * time.Second})
	s := seed(t)
	dice := rand.New(rand.NewPCG(s, 2))
	b := f.openBooks(t, clients, s)
	b.await(t, 20)
	b.disturb(t, proxies[c.Primary()], dice)
	fault(c.Primary())
	heir, other := mostAdvanced(t, c, database)
	must(t, heir.Promote(ctx))
	must(t, other.Follow(ctx, heir))
	b.await(t, 20)
	b.disturb(t, proxies[heir], dice)
	c.Primary().Thaw()
	b.await(t, 20)
	b.disturb(t, proxies[heir], dice)
	b.close()

	audit := b.ledger.Audit(stored(t, heir, database))
	report := b.counters.Report(final(t, heir, database))
	t.Logf("ledger: %v\ncounters:\n%v", audit, report)
	if len(audit.Violations) > 0 || report.Broken() > 0 {
		t.Error("promises were broken")
	}
	if audit.Unknown == 0 {
		t.Error("no outcome was unknown: the faults have missed the writes")
	}
}

// openBooks starts clients. Each alternates between a row of the ledger and its counter.
func (f *fleet) openBooks(t *testing.T, clients int, seed uint64) *books {
	ctx, stop := context.WithCancel(context.Background())
	b := &books{f: f, ledger: history.NewLedger(), counters: history.New(), stop: stop}
	t.Cleanup(b.close)
	for i := range int64(clients) {
		person := f.client(b.counters, carriers[1+i%2], i+1, 1+(i+1)%int64(clients), rand.New(rand.NewPCG(seed, uint64(i)+100)))
		b.group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				person.enter(b, n)
				person.step(context.Background(), true)
			}
		})
	}
	return b
}

func (b *books) close() {
	b.stop()
	b.group.Wait()
}

// enter writes one row into the ledger, by one of the ways to write.
func (c *client) enter(b *books, n int) {
	id, how := fmt.Sprintf("%s-%d", c.name, n), []string{"exec", "row", "tx", "batch"}[n%4]
	op := history.Op{Kind: history.Write, Via: how, Start: c.f.now()}
	status, answer := c.ask(context.Background(), "/entry?how="+how+"&id="+url.QueryEscape(id))
	op.End = c.f.now()
	switch {
	case status == http.StatusOK:
		op.Node = strings.Join(answer, " ")
		b.rows.Add(1)
	case status == http.StatusServiceUnavailable:
		op.Outcome = history.Failed
	default:
		op.Outcome = history.Unknown
	}
	b.ledger.Add(c.name, id, op)
}

// await waits until some more rows were acknowledged.
func (b *books) await(t *testing.T, more int64) {
	t.Helper()
	want := b.rows.Load() + more
	eventually(t, fmt.Sprintf("%d acknowledged rows", want), func() bool { return b.rows.Load() >= want })
}

// disturb cuts the connections to a server in some ways, and lets answers get lost.
func (b *books) disturb(t *testing.T, p *faultconn.Proxy, dice *rand.Rand) {
	t.Helper()
	cuts := []func(){
		p.Cut, p.Reset, p.HalfOpen,
		func() { p.Finish(faultconn.ToServer) },
		func() { p.Blackhole(faultconn.ToServer) },
	}
	dice.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	for _, fault := range append(cuts[:2], func() { p.Blackhole(faultconn.ToClient) }) {
		b.await(t, 5)
		fault()
		<-time.After(time.Duration(50+dice.IntN(200)) * time.Millisecond)
		p.Heal()
	}
	b.await(t, 10)
}

// mostAdvanced returns the replica that has received the most, and the other one.
func mostAdvanced(t *testing.T, c *pgcluster.Cluster, database string) (first, second *pgcluster.Server) {
	t.Helper()
	var received [2]int64
	for i := range received {
		conn, err := c.Replica(i).Connect(t.Context(), database)
		must(t, err)
		defer conn.Close(context.Background())
		must(t, conn.QueryRow(t.Context(), `select (pg_last_wal_receive_lsn() - '0/0')::bigint`).Scan(&received[i]))
	}
	if received[1] > received[0] {
		return c.Replica(1), c.Replica(0)
	}
	return c.Replica(0), c.Replica(1)
}

// stored counts each key of the ledger.
func stored(t *testing.T, s *pgcluster.Server, database string) map[string]int {
	t.Helper()
	conn, err := s.Connect(t.Context(), database)
	must(t, err)
	defer conn.Close(context.Background())
	rows, _ := conn.Query(t.Context(), `select id, count(*)::int from ledger group by id`)
	counts, id, n := map[string]int{}, "", 0
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { counts[id] = n; return nil })
	must(t, err)
	return counts
}
