package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// Gate decides whether this process may write now. *readonly.Switch is one. It is asked before every statement on
// the primary, so it must be fast; its error reaches the caller, wrapped.
type Gate interface {
	AllowWrite(ctx context.Context) error
}

// Options are the optional settings of a DB.
type Options struct {
	// Name labels this DB's metrics and its sessions (application_name): at most 55 characters of printable ASCII. The instances
	// of a fleet count each other by it. Zero means "db".
	Name string

	// FenceLock is the key of an advisory lock that each transaction which is begun for writes holds, shared, until it ends: by
	// Begin, BeginTx and InTx, by a Connector, and by a batch with BeginTx. Whoever takes it exclusively, as readonly/pgwitness
	// can, has then waited for all of them, other programs' that hold it included. It rides on BEGIN and costs no round trip.
	// Single statements do not hold it, nor do transactions that are begun in SQL or on a connection from Acquire or RawConn.
	// Zero means none.
	FenceLock int64

	// MinConns is how many connections each pool keeps open. Zero means the connection string's pool_min_conns,
	// or none.
	MinConns int32
	// MaxConns is the most connections of the primary's pool, and of each replica's. Zero means the connection
	// string's pool_max_conns, or pgxpool's default: the greater of 4 and the number of CPUs.
	MaxConns int32
	// ReplicaConns is the most connections of each replica's pool, if that is to differ from the primary's. Zero means
	// MaxConns.
	ReplicaConns int32
	// PrimaryReadConns is the most connections that reads which no replica can serve may take from the primary. They have
	// a pool of their own there, so that a lost replica does not starve the writers. Zero means half of the
	// primary's MaxConns, at least 2; all of it when there are no replicas.
	PrimaryReadConns int32

	// PoolWait is how long a call waits for a connection of a pool that is in use, before it fails with ErrSaturated. Under more
	// load than the database bears, all calls wait for as long as this: below what callers wait for an answer, those that get a
	// connection are still in time, and the others know soon. Of a server that does not answer it is not the pool that is waited for:
	// PoolWait begins once more when it is back. Zero means as long as the call's context.
	PoolWait time.Duration

	// MaxStaleness is how stale a replica may be while the primary can serve reads instead. When the primary cannot,
	// staler replicas serve reads that did not themselves ask for a bound. Zero means 10 s.
	MaxStaleness time.Duration
	// WaitForReplica is how long a read waits for a replica to replay what its caller has written before it goes to the
	// primary. Zero means 50 ms; negative means no wait.
	WaitForReplica time.Duration

	// MonotonicReads makes what a caller has seen travel like what it has written: no later read under the same watermark,
	// or one that it was carried to, is answered from an older state. Each answer then leaves a position to carry. Zero
	// means that only writes do.
	MonotonicReads bool
	// Fallback says who serves the reads that no replica within the bound can. Zero means the primary within
	// PrimaryReadConns, then staler replicas.
	Fallback Fallback
	// PrimaryReadWait is how long such a read waits for one of PrimaryReadConns, before a staler replica serves it. Where
	// none may, it waits as long as its context lets it. Zero means 100 ms.
	PrimaryReadWait time.Duration
	// FailoverWait is the most that a write waits for a primary when the present one cannot be connected to or has been demoted.
	// Nothing has been sent by then. While the primary is known to be down, attempts to connect are part of the wait. It begins
	// after the attempt when that was not known yet: one that hangs takes ConnectTimeout at most. A wait for a connection that
	// others have is part of it while there is no primary. A read that replicas have refused, so that only the primary is left, as one
	// that is serializable, waits for as long. Zero means 2 s; negative means no wait, but for one attempt to connect.
	FailoverWait time.Duration

	// Zone is where this process runs: replicas whose node_zone is the same serve its reads unless they are four times as
	// busy as the others. Zero means that zones do not matter.
	Zone string
	// Discover returns the connection strings of the replicas that there are now. It is called by Run every
	// DiscoverInterval and when the primary changes. Those that it names are added; those that it named before and
	// not in three calls since are removed, but none that the DB was opened with. Zero means that nothing is discovered. See
	// FromDNS and FromStandbys.
	Discover Discovery
	// DiscoverInterval is how often Discover is called. Zero means 30 s.
	DiscoverInterval time.Duration

	// ProbeInterval is how often the monitor samples each node. Zero means 250 ms.
	ProbeInterval time.Duration
	// ProbeTimeout is when a node that does not answer a probe counts as down, and connections to it that are silent as
	// long are closed. Zero means 1 s.
	ProbeTimeout time.Duration
	// ConnectTimeout bounds each attempt to connect, also one to cancel the statement of a connection that is closed. Zero means the
	// connection string's connect_timeout, or 2 s.
	ConnectTimeout time.Duration

	// MaintainTables are those that OptimizeTable, and its operation, may work on: Lead, "Lead" or schema.table, found as there.
	// A name without a schema is meant in every one. A partitioned table is done with its partitions, but its name does not
	// stand for one of them. Zero means all but the system's.
	MaintainTables []string

	// Gate is asked before every write. Zero means that writes are always allowed.
	Gate Gate
	// AfterConnect prepares a new pool connection, for example by registering types. Zero means nothing.
	AfterConnect func(context.Context, *pgx.Conn) error
	// Tracer is composed with the DB's own; the further tracer interfaces of pgx and pgxpool are found on it.
	// Zero means none.
	Tracer pgx.QueryTracer
	// Logger gets changes of nodes and failures of background work. Zero means that nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

func (o *Options) withDefaults() Options {
	var c Options
	if o != nil {
		c = *o
	}
	c.MaintainTables = slices.Clone(c.MaintainTables)
	if c.Name == "" {
		c.Name = "db"
	}
	if c.MaxStaleness == 0 {
		c.MaxStaleness = 10 * time.Second
	}
	if c.WaitForReplica == 0 {
		c.WaitForReplica = 50 * time.Millisecond
	}
	if c.PrimaryReadWait == 0 {
		c.PrimaryReadWait = 100 * time.Millisecond
	}
	if c.FailoverWait == 0 {
		c.FailoverWait = 2 * time.Second
	}
	if c.DiscoverInterval == 0 {
		c.DiscoverInterval = 30 * time.Second
	}
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 250 * time.Millisecond
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// maxOwnName leaves room for what is added to the name of the monitor's sessions, by which the fleet is counted. What is added to
// others', such as those of an operation, may be cut off.
const maxOwnName = maxNameBytes - len(" monitor")

func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("dbsplit: Options."+format, args...))
	}
	if len(o.Name) > maxOwnName || strings.ContainsFunc(o.Name, func(r rune) bool { return r < ' ' || r > '~' }) {
		bad("Name is %q, want at most %d characters of printable ASCII: of a session's name PostgreSQL keeps no more", o.Name, maxOwnName)
	}
	if o.MinConns < 0 {
		bad("MinConns is %d, want 0 or more", o.MinConns)
	}
	if o.MaxConns < 0 {
		bad("MaxConns is %d, want 1 or more, or 0 for the default", o.MaxConns)
	}
	if o.MaxConns > 0 && o.MinConns > o.MaxConns {
		bad("MinConns is %d, want at most MaxConns, which is %d", o.MinConns, o.MaxConns)
	}
	if o.PrimaryReadConns < 0 {
		bad("PrimaryReadConns is %d, want 1 or more, or 0 for the default", o.PrimaryReadConns)
	}
	if o.ReplicaConns < 0 {
		bad("ReplicaConns is %d, want 1 or more, or 0 for the default", o.ReplicaConns)
	}
	if o.Fallback > FallbackNone {
		bad("Fallback is %d, want one of the constants", o.Fallback)
	}
	for i, name := range o.MaintainTables {
		if _, err := splitName(name); err != nil {
			bad("MaintainTables[%d] is %q, which is not the name of a table: %w", i, name, err)
		}
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"PoolWait", o.PoolWait},
		{"MaxStaleness", o.MaxStaleness},
		{"PrimaryReadWait", o.PrimaryReadWait},
		{"DiscoverInterval", o.DiscoverInterval},
		{"ProbeInterval", o.ProbeInterval},
		{"ProbeTimeout", o.ProbeTimeout},
		{"ConnectTimeout", o.ConnectTimeout},
	} {
		if d.value < 0 {
			bad("%s is %v, want a positive duration, or 0 for the default", d.name, d.value)
		}
	}
	return errors.Join(errs...)
}
