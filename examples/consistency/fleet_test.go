package consistency

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

const instances = 3

// fleet is the instances of the service, each in a process of its own.
type fleet struct {
	began time.Time
	bases []string
	http  *http.Client

	mu       sync.Mutex
	looks    map[string]chan string // by the job's id: what it saw
	failures map[string]int         // by what the answer said
}

// startFleet starts instances, which stop when the test ends.
func startFleet(t *testing.T, c instanceConfig) *fleet {
	t.Helper()
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.ProbeTimeout == 0 {
		// A busy machine is no fault of the servers: taken for one, it would be busier yet, with new connections.
		c.ProbeTimeout = 10 * time.Second
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	f := &fleet{began: time.Now(), http: &http.Client{Transport: transport, Timeout: 2 * c.Patience}, looks: map[string]chan string{}, failures: map[string]int{}}
	c.Instances, c.Redis = instances, redis.Get(t).Addrs()
	for i := range instances {
		c.Name, c.Number = fmt.Sprintf("instance-%d", i), i
		f.bases = append(f.bases, f.startInstance(t, c))
	}
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(func() {
		for text, n := range f.failures {
			t.Logf("%d × %s", n, text)
		}
	})
	for _, base := range f.bases {
		eventually(t, base+" to know two replicas", func() bool {
			_, body, err := f.ask(t.Context(), base+"/ready", nil)
			return err == nil && body == "2"
		})
	}
	return f
}

func (f *fleet) startInstance(t *testing.T, c instanceConfig) (base string) {
	t.Helper()
	value, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), instanceEnv+"="+string(value), "GORACE=halt_on_error=1", "GOGC=400")
	log := new(tail)
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening, done := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			switch verb, rest, _ := strings.Cut(lines.Text(), " "); verb {
			case "listening":
				listening <- "http://" + strings.TrimPrefix(rest, "on ")
			case "looked":
				id, saw, _ := strings.Cut(rest, " ")
				f.looked(id, saw)
			}
		}
	}()
	t.Cleanup(func() {
		stdin.Close() // never written to: its end is ours
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended with %v", c.Name, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", c.Name, log)
		}
	})
	select {
	case base = <-listening:
	case <-done:
		t.Fatalf("%s does not listen:\n%s", c.Name, log)
	}
	return base
}

// await announces that a job will look; the channel gets what it saw.
func (f *fleet) await(id string) <-chan string {
	saw := make(chan string, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks[id] = saw
	return saw
}

// looked takes what a job saw. A second run of the job comes too late for anybody.
func (f *fleet) looked(id, saw string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.looks[id]; c != nil {
		c <- saw
		delete(f.looks, id)
	}
}

// failed notes why a request failed, without the numbers that are different each time.
func (f *fleet) failed(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures[digits.ReplaceAllString(text, "0")]++
}

var digits = regexp.MustCompile(`[0-9]+`)

// ask makes a request and returns the answer, without its last line break.
func (f *fleet) ask(ctx context.Context, url string, prepare func(*http.Request)) (*http.Response, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	if prepare != nil {
		prepare(r)
	}
	resp, err := f.http.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	blob, err := io.ReadAll(resp.Body)
	return resp, strings.TrimSpace(string(blob)), err
}

// tail keeps the end of what a process says.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (l *tail) Write(p []byte) (int, error) {
	const most = 16 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text = append(l.text, p...); len(l.text) > 2*most {
		l.text = append([]byte("…"), l.text[len(l.text)-most:]...)
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// counters makes the tables, and a counter for each number up to n.
func counters(t *testing.T, c *pgcluster.Cluster, database string, n int) {
	t.Helper()
	conn, err := c.Primary().Connect(t.Context(), database)
	must(t, err)
	defer conn.Close(context.Background())
	for _, sql := range []string{
		`create table counters (id bigint primary key, value bigint not null) with (fillfactor = 20)`,
		`create table ledger (id text)`,
		fmt.Sprintf(`insert into counters select n, 0 from generate_series(1, %d) n`, n),
	} {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
	for _, r := range c.Servers()[1:] {
		must(t, r.WaitCaughtUp(t.Context()))
	}
}

// final reads all counters from the server that has the last word.
func final(t *testing.T, s *pgcluster.Server, database string) map[int64]int64 {
	t.Helper()
	values := map[int64]int64{}
	conn, err := s.Connect(t.Context(), database)
	must(t, err)
	defer conn.Close(context.Background())
	rows, _ := conn.Query(t.Context(), `select id, value from counters`)
	var id, value int64
	_, err = pgx.ForEachRow(rows, []any{&id, &value}, func() error { values[id] = value; return nil })
	must(t, err)
	return values
}

func nodesOf(c *pgcluster.Cluster, database string) dbsplit.Nodes {
	nodes := dbsplit.Nodes{Primary: c.Primary().URL(database)}
	for _, s := range c.Servers()[1:] {
		nodes.Replicas = append(nodes.Replicas, s.URL(database))
	}
	return nodes
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls, because what it waits for happens in other processes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
