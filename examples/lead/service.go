package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/metrics/redisfleet"
	"github.com/scaleaware/scaleaware/metrics/redismetrics"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

// Service is what API instances, workers and the management process have in common: every package, wired once.
type Service struct {
	// Jobs are the queues, for whoever works on them or scales those who do.
	Jobs *queue.Jobs

	name     string
	log      *slog.Logger
	registry *prometheus.Registry

	rdb      redis.UniversalClient
	db       *dbsplit.DB
	store    *cache.Store
	leads    *cache.View[Lead]
	sessions *session.Manager
	carrier  *scaleaware.Carrier
	mode     *readonly.Switch
	keeper   *readonly.Keeper
	incident *readonly.Incident
	audit    atomic.Pointer[admin.Handler]
	admit    admission
	http     *metrics.HTTP
	capacity *metrics.Capacity
	stopping chan struct{}
	schema   atomic.Bool // seen to be complete
}

// queues are the runbook's, with its limits, and one without for the work that users wait for.
var queues = []queue.Queue{
	{Name: queueCritical, Weight: 6, Rate: queue.Rate{Max: 1000, Per: time.Second}},
	{Name: QueueLeads, Weight: 3},
	{Name: queueNormal, Weight: 2, Rate: queue.Rate{Max: 100, Per: time.Second}},
	{Name: queueLow, Weight: 1, Rate: queue.Rate{Max: 10, Per: time.Second}},
}

// Open wires a service. It fails on wrong configuration only: servers that are down heal later.
func Open(ctx context.Context, c Config, log *slog.Logger) (_ *Service, err error) {
	if !c.HasServers() {
		return nil, errors.New("set DATABASE_URL_PRIMARY, and REDIS_ADDRS or REDIS_URL")
	}
	s := &Service{name: c.Instance, log: log, registry: prometheus.NewRegistry(), stopping: make(chan struct{}), admit: newAdmission(int(c.MaxRequests))}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	redisOptions := redisclient.Options(c.RedisAddrs...)
	if c.RedisURL != "" {
		if redisOptions, err = redisclient.ParseURL(c.RedisURL); err != nil {
			return nil, err
		}
	}
	s.rdb = redisclient.New(redisOptions)
	if err := redismetrics.Attach(s.rdb, &redismetrics.Options{Name: "platform", Registerer: s.registry}); err != nil {
		return nil, err
	}

	table, err := c.Alerting.Table()
	if err != nil {
		return nil, err
	}
	registerer := table.Registerer(s.registry) // the table's thresholds need buckets of their own
	s.db, err = dbsplit.Open(ctx, dbsplit.Nodes{Primary: c.PrimaryURL, Replicas: c.ReplicaURLs}, &dbsplit.Options{
		MinConns: c.PoolMin, MaxConns: c.PoolMax, PoolWait: 500 * time.Millisecond, Gate: gate{s}, FenceLock: fenceLock, Logger: log, Registerer: registerer,
	})
	if err != nil {
		return nil, err
	}
	if err := s.openMode(registerer); err != nil {
		return nil, err
	}
	s.store, err = cache.New(s.rdb, &cache.Options{
		Prefix: "app:", MaxLoads: c.maxLoads(), WarmSchedule: "0 */6 * * *", WarmGate: s.databaseBusy, Verify: 0.001, Logger: log, Registerer: registerer,
	})
	if err != nil {
		return nil, err
	}
	s.leads = cache.Of[Lead](s.store, "lead", cache.TTL(10*time.Minute),
		cache.InProcess(cache.Local{}), cache.StaleIfError(time.Hour), cache.EarlyRefresh(1))
	s.Jobs, err = queue.New(s.rdb, queues, &queue.Options{Gate: s.mode, Outbox: s.db, Logger: log, Registerer: registerer})
	if err != nil {
		return nil, err
	}
	s.sessions, err = session.New(s.rdb, &session.Options{Insecure: c.PlainHTTP, Secrets: c.SessionSecrets, Logger: log, Registerer: registerer})
	if err != nil {
		return nil, err
	}
	signer, err := scaleaware.NewSigner(c.SessionSecrets, nil)
	if err != nil {
		return nil, fmt.Errorf("SESSION_SECRET: %w", err)
	}
	if s.carrier, err = scaleaware.NewCarrier(signer, &scaleaware.CarrierOptions{Insecure: c.PlainHTTP, Logger: log}); err != nil {
		return nil, err
	}
	if s.http, err = metrics.NewHTTP(registerer, nil); err != nil {
		return nil, err
	}
	fleet, err := redisfleet.New(s.rdb, nil)
	if err != nil {
		return nil, err
	}
	if s.capacity, err = metrics.NewCapacity(s.registry, &metrics.CapacityOptions{
		Table: table, Interval: c.Alerting.Interval, Instance: c.Instance, Store: fleet, Logger: log, Registerer: registerer,
	}); err != nil {
		return nil, err
	}
	s.incident, err = readonly.NewIncident(s.mode, s.extendTTLs(), s.pauseLow())
	return s, errors.Join(err, s.declareWarmSet())
}

// Close closes what Open opened, after Run has returned.
func (s *Service) Close() {
	if s.db != nil {
		s.db.Close()
	}
	if s.rdb != nil {
		s.rdb.Close()
	}
}

// Run owns the background work of every package until ctx ends. The read-only switch is the last to end: whatever writes is in
// step with it until then.
func (s *Service) Run(ctx context.Context) error {
	switching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	switched := make(chan error, 1)
	go func() { switched <- s.mode.Run(switching) }()

	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{s.keeper.Run, s.incident.Run, s.db.Run, s.store.Run, s.Jobs.Run, s.sessions.Run, s.capacity.Run} {
		group.Go(func() error { return run(ctx) })
	}
	err := group.Wait()
	stop()
	return errors.Join(err, <-switched)
}

// Handler is the API behind every middleware, outermost first.
func (s *Service) Handler() http.Handler {
	return s.http.Middleware(s.carrier.Middleware(s.sessions.Middleware(s.mode.Middleware(metrics.Routes(s.routes())))))
}

// Admin is the management listener's handler. More are checks of readiness that only the process knows.
func (s *Service) Admin(c Config, more ...admin.Check) (*admin.Handler, error) {
	options := &admin.Options{
		Title: "leadplatform " + s.name,
		// The demo's listener is on loopback. With ADMIN_TOKEN set, the token is needed.
		AllowInsecureLoopback: true,
		Metrics:               metrics.Handler(s.registry),
		Checks: append([]admin.Check{
			{Name: "database", Ready: s.db.Ready},
			{Name: "schema", Ready: s.hasSchema},
			{Name: "cache", Ready: s.store.Ready, Optional: true},
			{Name: "queue", Ready: s.Jobs.Ready, Optional: true},
			{Name: "sessions", Ready: s.sessions.Ready},
			{Name: "read-only", Ready: s.mode.Ready, Optional: true},
		}, more...),
		Logger: s.log,
	}
	var err error
	if options.Audit, err = metrics.CountWrites(s.registry); err != nil {
		return nil, err
	}
	if c.AdminToken != "" {
		options.Tokens = []admin.Token{{Name: "admin", Role: admin.Operator, Secret: c.AdminToken}}
	}
	if c.ViewerToken != "" {
		options.Tokens = append(options.Tokens, admin.Token{Name: "viewer", Role: admin.Viewer, Secret: c.ViewerToken})
	}
	handler, err := admin.New(slices.Concat(
		s.db.Operations(), s.store.Operations(), s.Jobs.Operations(), s.mode.Operations(), s.incident.Operations(), s.capacity.Operations(), s.sessions.Operations(),
	), options)
	if err == nil {
		s.audit.Store(handler)
	}
	return handler, err
}
