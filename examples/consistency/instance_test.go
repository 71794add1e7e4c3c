package consistency

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

// instanceEnv makes the test binary an instance of the service: the value is its instanceConfig.
const instanceEnv = "CONSISTENCY_TEST_INSTANCE"

type instanceConfig struct {
	Name      string
	Number    int
	Instances int
	Nodes     dbsplit.Nodes
	Redis     []string
	// Patience bounds one request. ProbeTimeout is that of dbsplit; twice as long may connecting take.
	Patience, ProbeTimeout time.Duration
	// Monotonic makes what clients saw travel too.
	Monotonic bool
}

// secret is what instances sign tokens with.
const secret = "a secret of the test that has more than thirty-two bytes"

// instance is one process of the service.
type instance struct {
	db   *dbsplit.DB
	rows *cache.View[row]
	jobs *queue.Jobs
	log  *slog.Logger

	patience time.Duration

	mu  sync.Mutex
	out *bufio.Writer
}

// row is a counter as a node showed it.
type row struct {
	Value int64
	Node  string
}

// look is the job that reads two counters in another process than the one that wrote.
type look struct {
	ID        string
	Own, Peer int64
}

// Kind names the job.
func (look) Kind() string { return "look" }

func queueOf(instance int) string { return "instance-" + strconv.Itoa(instance) }

// runInstance serves until its input ends, which is the end of the test.
func runInstance() error {
	var c instanceConfig
	if err := json.Unmarshal([]byte(os.Getenv(instanceEnv)), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("instance", c.Name)
	in := &instance{log: log, patience: c.Patience, out: bufio.NewWriter(os.Stdout)}

	var err error
	if in.db, err = dbsplit.Open(ctx, c.Nodes, &dbsplit.Options{
		MinConns: 4, MaxConns: 8, MonotonicReads: c.Monotonic, Logger: log,
		ProbeTimeout: c.ProbeTimeout, ConnectTimeout: 2 * c.ProbeTimeout,
	}); err != nil {
		return err
	}
	defer in.db.Close()
	rdb := redisclient.New(redisclient.Options(c.Redis...))
	defer rdb.Close()
	store, err := cache.New(rdb, nil)
	if err != nil {
		return err
	}
	in.rows = cache.Of[row](store, "counter")
	var queues []queue.Queue
	for i := range c.Instances {
		queues = append(queues, queue.Queue{Name: queueOf(i)})
	}
	if in.jobs, err = queue.New(rdb, queues, nil); err != nil {
		return err
	}
	worker, err := in.jobs.NewWorker(&queue.WorkerOptions{Queues: []string{queueOf(c.Number)}, Concurrency: 32, DrainTimeout: time.Second})
	if err != nil {
		return err
	}
	queue.Handle(worker, in.look)
	sessions, err := session.New(rdb, &session.Options{Insecure: true, StoreTimeout: c.ProbeTimeout, Logger: log})
	if err != nil {
		return err
	}
	signer, err := scaleaware.NewSigner([]string{secret}, nil)
	if err != nil {
		return err
	}
	carrier, err := scaleaware.NewCarrier(signer, &scaleaware.CarrierOptions{Insecure: true, Logger: log})
	if err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.Handle("/session/", http.StripPrefix("/session", sessions.Middleware(in.routes(sessions))))
	mux.Handle("/", carrier.Middleware(in.routes(nil)))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	in.say("listening on %s", listener.Addr())
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{in.db.Run, store.Run, in.jobs.Run, worker.Run} {
		group.Go(func() error { return run(ctx) })
	}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	<-ctx.Done()
	return errors.Join(server.Close(), group.Wait())
}

// say tells the parent something, in a line.
func (in *instance) say(format string, args ...any) {
	in.mu.Lock()
	defer in.mu.Unlock()
	fmt.Fprintf(in.out, format+"\n", args...)
	in.out.Flush()
}

func (in *instance) routes(sessions *session.Manager) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) {
		fresh := 0
		for _, n := range in.db.Nodes() {
			if n.Role == "replica" && n.Up && n.Staleness >= 0 {
				fresh++
			}
		}
		fmt.Fprintln(w, fresh)
	})
	mux.HandleFunc("/step", in.step)
	mux.HandleFunc("/entry", in.entry)
	if sessions != nil {
		mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
			if err := sessions.Login(r.Context(), r.FormValue("as")); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
			}
		})
	}
	return mux
}

// step reads two counters, and increases the first when it is told to, as handlers do. Then it drops that from the cache,
// or enqueues a job that looks at it in another process. All the while the client holds what another process gave it.
func (in *instance) step(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), in.patience)
	defer cancel()
	q := r.URL.Query()
	own, peer := q.Get("own"), q.Get("peer")
	var answer []any
	var err error
	if q.Has("cached") {
		answer, err = in.cached(ctx, own, peer)
	} else {
		answer, err = in.two(ctx, number(own), number(peer))
	}
	if err == nil && q.Has("write") {
		var now row
		err = in.db.QueryRow(ctx, `update counters set value = value + 1 where id = $1 returning value, current_setting('cluster_name')`, number(own)).Scan(&now.Value, &now.Node)
		answer = append(answer, now.Value, now.Node)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	switch {
	case !q.Has("write"):
	case q.Has("cached"):
		err = in.rows.Delete(ctx, own)
	case q.Has("look"):
		_, err = in.jobs.Enqueue(ctx, look{ID: q.Get("look"), Own: number(own), Peer: number(peer)}, queue.On(queueOf(int(number(q.Get("to"))))))
	}
	if err != nil { // the write has happened: what was to follow it has not
		answer = append(answer, "alone")
		in.log.Warn("after a write", "error", err)
	}
	fmt.Fprintln(w, answer...)
}

// two reads from a replica that has what the caller wrote and saw.
func (in *instance) two(ctx context.Context, own, peer int64) ([]any, error) {
	var first, second int64
	var node string
	err := in.db.Read().QueryRow(ctx, readTwo, own, peer).Scan(&first, &second, &node)
	return []any{first, node, second, node}, err
}

const readTwo = `select a.value, b.value, current_setting('cluster_name') from counters a, counters b where a.id = $1 and b.id = $2`

// cached is two through the cache.
func (in *instance) cached(ctx context.Context, keys ...string) (answer []any, err error) {
	for _, key := range keys {
		loaded := false
		got, err := in.rows.Load(ctx, key, func(ctx context.Context, id string) (now row, err error) {
			loaded = true
			err = in.db.Read().QueryRow(ctx, `select value, current_setting('cluster_name') from counters where id = $1`, number(id)).Scan(&now.Value, &now.Node)
			return now, err
		})
		if err != nil {
			return nil, err
		}
		if !loaded {
			got.Node = "cache"
		}
		answer = append(answer, got.Value, got.Node)
	}
	return answer, nil
}

// look is what a job does: it reads with what its enqueuer knew, and tells the parent.
func (in *instance) look(ctx context.Context, job look) error {
	saw, err := in.two(ctx, job.Own, job.Peer)
	if err == nil {
		in.say("looked %s %v %v %v %v", append([]any{job.ID}, saw...)...)
	}
	return err
}

// entry writes one row of the ledger, which has no constraint that would hide a second one.
func (in *instance) entry(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), in.patience)
	defer cancel()
	const insert = `insert into ledger values ($1) returning current_setting('cluster_name')`
	id, node := r.FormValue("id"), ""
	var err error
	switch r.FormValue("how") {
	case "tx":
		err = in.db.InTx(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, insert, id).Scan(&node) })
	case "batch":
		var b pgx.Batch
		b.Queue(insert, id).QueryRow(func(row pgx.Row) error { return row.Scan(&node) })
		err = in.db.SendBatch(ctx, &b).Close()
	case "exec":
		_, err = in.db.Exec(ctx, insert, id)
	default:
		err = in.db.QueryRow(ctx, insert, id).Scan(&node)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	fmt.Fprintln(w, 0, "primary:"+node, "done")
}

// refuse tells whether something may have been written.
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		status = http.StatusInternalServerError
	}
	http.Error(w, err.Error(), status)
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return n
}
