package dbsplitbench

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/bxcodec/dbresolver/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that dbresolver runs on

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

const (
	database = "postgres"
	maxConns = 8
	// quiet is for the monitor where it would only add noise: it probes once.
	quiet = time.Hour
	// patience bounds what should take milliseconds.
	patience = 30 * time.Second
)

// lab has one primary with two replicas for all measurements that break nothing.
type lab struct {
	opts    *Options
	cluster *pgcluster.Cluster
}

func (l *lab) servers(ctx context.Context) (*pgcluster.Cluster, error) {
	if l.cluster != nil {
		return l.cluster, nil
	}
	c, err := startCluster(ctx, 2)
	l.cluster = c
	return c, err
}

// startCluster starts a primary with replicas that have the table writes go to.
func startCluster(ctx context.Context, replicas int) (*pgcluster.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: replicas})
	if err != nil {
		return nil, err
	}
	err = c.Primary().Exec(ctx, "create table notes (id bigint generated always as identity primary key, n int not null)")
	for i := 0; err == nil && i < replicas; i++ {
		err = c.Replica(i).WaitCaughtUp(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (l *lab) close() error {
	if l.cluster == nil {
		return nil
	}
	return l.cluster.Close()
}

func (l *lab) facts(ctx context.Context) []string {
	if l.cluster == nil {
		return nil
	}
	var version string
	conn, err := l.cluster.Primary().Connect(ctx, database)
	if err != nil {
		return nil
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "show server_version").Scan(&version); err != nil {
		return nil
	}
	return []string{fmt.Sprintf("PostgreSQL %s over loopback, fsync off, %d connections a pool.", version, maxConns)}
}

// address is how to reach a server at host:port, itself or a proxy before it.
func address(hostPort string, params ...string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: hostPort, Path: "/" + database}
	q := url.Values{"sslmode": {"disable"}}
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// openSplit opens a DB and runs its monitor. It returns when every replica is fresh. stop ends both.
func openSplit(ctx context.Context, opts *dbsplit.Options, primary string, replicas ...string) (db *dbsplit.DB, stop func(), err error) {
	if opts.MaxConns == 0 {
		opts.MaxConns = maxConns
	}
	nodes := dbsplit.Nodes{Primary: address(primary)}
	for _, r := range replicas {
		nodes.Replicas = append(nodes.Replicas, address(r))
	}
	if db, err = dbsplit.Open(ctx, nodes, opts); err != nil {
		return nil, nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = db.Run(running) })
	stop = func() { cancel(); wg.Wait(); db.Close() }
	deadline := time.Now().Add(patience)
	for !allFresh(db) {
		if time.Now().After(deadline) {
			err = fmt.Errorf("replicas do not become fresh: %+v", db.Nodes())
			stop()
			return nil, nil, err
		}
		time.Sleep(time.Millisecond)
	}
	return db, stop, nil
}

func allFresh(db *dbsplit.DB) bool {
	for i, n := range db.Nodes() {
		if !n.Up || i > 0 && (n.Role != "replica" || n.Staleness < 0) {
			return false
		}
	}
	return true
}

// calm are options for a DB that is compared statement by statement.
func calm() *dbsplit.Options {
	return &dbsplit.Options{ProbeInterval: quiet, MaxStaleness: 2 * quiet}
}

func openPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = maxConns
	return pgxpool.NewWithConfig(ctx, config)
}

// openResolver opens a dbresolver over pgx's database/sql driver.
func openResolver(primary string, replicas ...string) (db dbresolver.DB, err error) {
	var all []*sql.DB
	for _, u := range append([]string{primary}, replicas...) {
		one, err := sql.Open("pgx", u)
		if err != nil {
			return nil, err
		}
		one.SetMaxOpenConns(maxConns)
		one.SetMaxIdleConns(maxConns) // the default of 2 would close connections all the time
		all = append(all, one)
	}
	return dbresolver.New(dbresolver.WithPrimaryDBs(all[0]), dbresolver.WithReplicaDBs(all[1:]...)), nil
}

// querier is what sqlc's code takes. Operations go through it, as callers' do: with a concrete type at hand the compiler
// may keep rows off the heap, which flatters.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

const (
	sqlOne    = "select 1"
	sqlMany   = "select generate_series(1, 100)"
	sqlInsert = "insert into notes (n) values (1)"
)

func readOne(ctx context.Context, q querier) error { return readOneBy(ctx, q, sqlOne) }

//go:noinline
func readOneBy(ctx context.Context, q querier, sql string) error {
	var n int
	return q.QueryRow(ctx, sql).Scan(&n)
}

//go:noinline
func readManyBy(ctx context.Context, q querier, sql string) error {
	rows, err := q.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	var n, sum int
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return err
		}
		sum += n
	}
	if err := rows.Err(); err != nil || sum != 5050 {
		return fmt.Errorf("rows up to 100 add to %d: %w", sum, err)
	}
	return nil
}

//go:noinline
func insertOne(ctx context.Context, q querier) error {
	_, err := q.Exec(ctx, sqlInsert)
	return err
}
