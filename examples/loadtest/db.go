package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// dbSize says how much the test of the database does, and what it expects.
type dbSize struct {
	leads int
	// rate is how many statements begin in a second, for so long; they do not wait for each other.
	rate     float64
	duration time.Duration
	pool     int32
	// patience is how many times longer than the thresholds statements may take: 1, but on a machine that is busy otherwise.
	patience float64
	// lag bounds how far a replica may be behind.
	lag time.Duration
	// prepare runs when the data is there.
	prepare func(ctx context.Context, primary *pgx.Conn) error
	// meanwhile runs when the load begins.
	meanwhile func(ctx context.Context) error
}

func usualDBSize() dbSize {
	return dbSize{
		leads: 100_000, rate: 100, duration: 15 * time.Second, pool: 10, patience: 1, lag: 5 * time.Second,
		prepare:   func(context.Context, *pgx.Conn) error { return nil },
		meanwhile: func(context.Context) error { return nil },
	}
}

// servers are the URLs of a primary and its replicas.
type servers struct {
	primary  string
	replicas []string
}

// testDB is the runbook's test:performance:db: on the servers of DATABASE_URL_PRIMARY and DATABASE_URL_REPLICA, in a
// database of its own that is dropped at the end, or on servers of its own.
func testDB(ctx context.Context, out io.Writer, _ Place, args []string) error {
	size := usualDBSize()
	flags := flag.NewFlagSet("db", flag.ContinueOnError)
	flags.IntVar(&size.leads, "leads", size.leads, "rows of the largest table")
	flags.Float64Var(&size.rate, "rate", size.rate, "statements a second")
	flags.DurationVar(&size.duration, "duration", size.duration, "how long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	on := servers{primary: os.Getenv("DATABASE_URL_PRIMARY")}
	for replica := range strings.SplitSeq(os.Getenv("DATABASE_URL_REPLICA"), ",") {
		if replica = strings.TrimSpace(replica); replica != "" {
			on.replicas = append(on.replicas, replica)
		}
	}
	if on.primary == "" {
		fmt.Fprintln(out, "starting a PostgreSQL primary with a replica …")
		cluster, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
		if err != nil {
			return err
		}
		defer cluster.Close()
		on = servers{cluster.Primary().URL("postgres"), []string{cluster.Replica(0).URL("postgres")}}
	}
	return dbTestOn(ctx, out, on, size)
}

func dbTestOn(ctx context.Context, out io.Writer, on servers, size dbSize) (err error) {
	name := "perftest_" + strings.ToLower(rand.Text()[:8])
	there, err := on.database(name)
	if err != nil {
		return err
	}
	home, err := pgx.Connect(ctx, on.primary)
	if err != nil {
		return err
	}
	defer home.Close(context.WithoutCancel(ctx))
	if _, err := home.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("the test needs a database of its own, and so a role with CREATEDB: %w", err)
	}
	defer func() {
		_, dropped := home.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, dropped)
	}()
	fmt.Fprintf(out, "filling a database with %d leads …\n", size.leads)
	t, err := openDBTest(ctx, there, size)
	if err != nil {
		return err
	}
	defer t.close()
	return runProbes(ctx, out, t.probes())
}

// database returns the URLs with another database.
func (s servers) database(name string) (servers, error) {
	out := servers{replicas: make([]string, len(s.replicas))}
	var errs []error
	move := func(raw string, to *string) {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" {
			errs = append(errs, errors.New("DATABASE_URL_PRIMARY and DATABASE_URL_REPLICA must be URLs")) // the error has the password
			return
		}
		u.Path = "/" + name
		if _, has := u.User.Password(); !has && u.User != nil && os.Getenv("DB_PASSWORD") != "" {
			u.User = url.UserPassword(u.User.Username(), os.Getenv("DB_PASSWORD"))
		}
		*to = u.String()
	}
	move(s.primary, &out.primary)
	for i, replica := range s.replicas {
		move(replica, &out.replicas[i])
	}
	return out, errors.Join(errs...)
}

// fillDB makes the example's tables and their rows.
func fillDB(ctx context.Context, primary string, size dbSize) (conn *pgx.Conn, err error) {
	if err := lead.Migrate(ctx, primary); err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(primary)
	if err != nil {
		return nil, err
	}
	config.Tracer = new(recorder)
	if conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, err
	}
	for _, sql := range []string{
		fmt.Sprintf(`INSERT INTO "Lead" (id, name, email, product, "createdAt")
			SELECT gen_random_uuid(), 'Lead ' || n, 'lead' || n || '@example.com', 'home', now() - n * interval '1 second'
			FROM generate_series(1, %d) n`, size.leads),
		`INSERT INTO "Event" (id, "entityType", "entityId", kind) SELECT gen_random_uuid(), 'Lead', id, 'created' FROM "Lead"`,
		`VACUUM ANALYZE "Lead"`, `VACUUM ANALYZE "Event"`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, errors.Join(fmt.Errorf("fill: %w", err), conn.Close(ctx))
		}
	}
	if err := size.prepare(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}
