package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// SnapshotStore shares the instances' small snapshots, so that any of them can report on all. It is used by one
// goroutine; both calls of a tick together get half an interval's time.
type SnapshotStore interface {
	// Put stores this instance's snapshot, to vanish after ttl.
	Put(ctx context.Context, instance string, blob []byte, ttl time.Duration) error
	// All returns the snapshots of all instances that have not vanished.
	All(ctx context.Context) (map[string][]byte, error)
}

// Capacity evaluates the table of key metrics over what a registry holds, and where it has a store, over all
// instances that share it.
type Capacity struct {
	gatherer prometheus.Gatherer
	opts     CapacityOptions
	table    []KeyMetric
	widths   map[string]int
	errors   *prometheus.CounterVec
	sampled  *prometheus.GaugeVec
	took     *prometheus.HistogramVec
	report   atomic.Pointer[report]
	judges   [reaches]*judge // Run's, but for their histories
}

// CapacityOptions are NewCapacity's options.
type CapacityOptions struct {
	// Interval is the time between two evaluations. Zero means 5 s.
	Interval time.Duration
	// Table is what is evaluated. Zero means KeyMetrics(). With thresholds of your own, give the packages its
	// Registerer.
	Table Table
	// Window is what rates and quantiles are taken over. Zero means the table's, 5 min.
	Window time.Duration
	// LeftOpen computes as Prometheus 3 does: a sample at the very beginning of a range is not part of it. Zero means as
	// Prometheus 2 does.
	LeftOpen bool
	// Webhook is told of alerts. Zero means that nobody is.
	Webhook *Webhook
	// Instance names this process among those that share Store. Zero means host name and process id.
	Instance string
	// Store shares snapshots between the processes. Zero means that this instance reports on itself alone.
	Store SnapshotStore
	// Logger gets background failures. Zero means that they are only counted.
	Logger *slog.Logger
	// Limits are resources' limits that nothing measures, for the report on bottlenecks. Zero means that there are none.
	Limits Limits
	// Version is the program's, shown in the list of instances. Zero means the one that Go's build recorded.
	Version string
	// Registerer exports the count of background failures. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

// NewCapacity makes a Capacity that reads from gatherer, which holds what the packages registered. Until Run it
// reports that nothing is known.
func NewCapacity(gatherer prometheus.Gatherer, opts *CapacityOptions) (*Capacity, error) {
	o := CapacityOptions{}
	if opts != nil {
		o = *opts
	}
	if o.Interval == 0 {
		o.Interval = 5 * time.Second
	}
	if len(o.Table.Rows) == 0 {
		o.Table.Rows = KeyMetrics().Rows
	}
	o.Table = o.Table.withDefaults()
	if o.Window == 0 {
		o.Window = o.Table.Window
	}
	if o.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		o.Instance = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = buildVersion()
	}
	c := &Capacity{gatherer: gatherer, opts: o, table: o.Table.Rows}
	c.widths = widths(c.table)
	c.judges = [reaches]*judge{newJudge(c), newJudge(c)}
	var errs []error
	if gatherer == nil {
		errs = append(errs, errors.New("metrics: NewCapacity needs a gatherer: give it the registry that the packages register with"))
	}
	if o.Interval < 0 || o.Window < 2*o.Interval {
		errs = append(errs, fmt.Errorf("metrics: CapacityOptions.Interval %v and Window %v: give a positive interval and a window of at least two of them", o.Interval, o.Window))
	}
	if o.Window > 1000*o.Interval {
		errs = append(errs, fmt.Errorf("metrics: CapacityOptions.Window %v keeps more than 1000 snapshots of %v, give a longer interval", o.Window, o.Interval))
	}
	errs = append(errs, o.Table.Audit())
	var err error
	c.errors, err = NewCounter(o.Registerer, BackgroundErrors)
	errs = append(errs, err)
	c.sampled, err = NewGauge(o.Registerer, SamplerSuccess)
	errs = append(errs, err)
	c.took, err = NewHistogram(o.Registerer, EvaluationDuration)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// Run evaluates at every interval until ctx ends, and returns nil then.
func (c *Capacity) Run(ctx context.Context) error {
	if c.opts.Webhook != nil {
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() { c.opts.Webhook.run(ctx) })
	}
	e := newEvaluation(c)
	ticker := time.NewTicker(c.opts.Interval)
	defer ticker.Stop()
	for at := time.Now(); ; at = due(at, time.Now(), c.opts.Interval) {
		e.tick(ctx, at)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// due is the time of the tick after last. Where it came a little early or late the plan counts, as in Prometheus: a
// threshold's time of so many intervals is over at so many ticks.
func due(last, now time.Time, every time.Duration) time.Time {
	plan := last.Add(every)
	if off := now.Sub(plan).Abs(); off > every/2 {
		return now
	}
	return plan
}

// evaluation is the state that Run owns.
type evaluation struct {
	*Capacity
	collector *collector
	examiner  *examiner
	roster    roster
	window    window
	started   time.Time
	failing   map[string]bool
	leader    string    // who notifies
	known     time.Time // when all were asked for the last time
	presence  *presence
	missing   []string
}

func newEvaluation(c *Capacity) *evaluation {
	return &evaluation{
		Capacity:  c,
		collector: newCollector(c.table),
		examiner:  newExaminer(c.table, &c.opts),
		roster:    roster{every: c.opts.Interval, seen: map[string]sighting{}},
		window:    newWindow(c.table, c.opts.Window, c.opts.LeftOpen),
		failing:   map[string]bool{},
	}
}

func (e *evaluation) tick(ctx context.Context, now time.Time) {
	began := time.Now()
	families, err := e.gatherer.Gather() // what it could gather comes with the error
	e.note("gather", err)
	e.audit(families)
	if e.started.IsZero() {
		e.started = now
	}
	own := &reading{Version: snapshotVersion, Started: e.started.UnixMilli(), At: now.UnixMilli(), Points: e.collector.collect(families), Vitals: e.examiner.examine(now, families, e.suspects())}
	if e.opts.Webhook != nil {
		own.Delivery = e.opts.Webhook.delivery(now)
	}
	readings, only, partial := map[string]*reading{}, e.opts.Instance, false
	var degraded []string
	if e.opts.Store != nil {
		var unreadable []string
		if readings, unreadable, err = e.share(ctx, own); err == nil {
			only = ""
			degraded = describeLosses(unreadable, e.roster.see(now, readings))
		} else if ctx.Err() == nil {
			partial = true
			degraded = append(degraded, "the other instances' snapshots cannot be read: this report is about this instance alone")
		}
		e.note("fleet", err)
	}
	if readings == nil {
		readings = map[string]*reading{}
	}
	readings[e.opts.Instance] = own
	e.window.add(frame{at: now, readings: readings, partial: partial})
	e.evaluate(now, only, strings.Join(degraded, "; "))
	e.notify(now, readings, partial)
	e.took.WithLabelValues().Observe(time.Since(began).Seconds())
	e.sampled.WithLabelValues("metrics", "evaluate").SetToCurrentTime()
}

// notify hands the alerts of the widest reach to the webhook, to send them if that is this instance's task. Where the
// others cannot be asked, who sent goes on sending as long as what is known of them counts. After that each sends for
// itself: better twice than never.
func (e *evaluation) notify(now time.Time, readings map[string]*reading, partial bool) {
	hook, own := e.opts.Webhook, e.opts.Instance
	if hook == nil {
		return
	}
	switch {
	case e.opts.Store == nil || e.leader == "" && partial:
		e.leader = own
	case !partial:
		for _, name := range []string{e.leader, leader(readings)} {
			if r := readings[name]; r != nil && r.Delivery != nil && name != own {
				hook.learn(r.Delivery, now)
			}
		}
		e.leader, e.known = leader(readings), now
	case now.Sub(e.known).Milliseconds() > lookback:
		e.leader = own
	}
	of := e.widest()
	hook.publish(now, e.leader == own, e.judges[of].alerts.told(of.String()))
}

// audit compares what is registered here with what the table needs, and says once what nothing here measures.
func (e *evaluation) audit(families []*dto.MetricFamily) {
	first := e.presence == nil
	if first {
		e.presence = newPresence(e.table, e.gatherer)
	}
	e.note("buckets", e.presence.look(families))
	if e.missing = e.presence.missing(); first && len(e.missing) > 0 {
		e.opts.Logger.Info("metrics: nothing in this process measures some key metrics, which is right where it does not use the packages that do", "metrics", e.missing)
	}
}

// share gives our snapshot to the others and takes theirs.
func (e *evaluation) share(ctx context.Context, own *reading) (readings map[string]*reading, unreadable []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.Interval/2)
	defer cancel()
	blob, err := own.encode()
	if err != nil {
		return nil, nil, err
	}
	if err := e.opts.Store.Put(ctx, e.opts.Instance, blob, 3*e.opts.Interval); err != nil {
		return nil, nil, err
	}
	blobs, err := e.opts.Store.All(ctx)
	if err != nil {
		return nil, nil, err
	}
	readings = make(map[string]*reading, len(blobs))
	var errs []error
	for instance, blob := range blobs {
		r, err := decode(blob, e.widths)
		if err != nil {
			errs = append(errs, fmt.Errorf("instance %.100q: %w", instance, err))
			unreadable = append(unreadable, instance)
			continue
		}
		readings[instance] = r
	}
	e.note("snapshot", errors.Join(errs...)) // one instance's fault does not hide the others
	return readings, unreadable, nil
}

// note counts a failure, and logs when it begins and when it ends.
func (e *evaluation) note(task string, err error) {
	if err != nil {
		e.errors.WithLabelValues("metrics", task).Inc()
	}
	if e.failing[task] == (err != nil) {
		return
	}
	e.failing[task] = err != nil
	if err != nil {
		e.opts.Logger.Warn("metrics: capacity evaluation is incomplete", "task", task, "error", err)
	} else {
		e.opts.Logger.Info("metrics: capacity evaluation is complete again", "task", task)
	}
}
