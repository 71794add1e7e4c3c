package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	report   atomic.Pointer[report]
	judges   [reaches]*judge // Run's, but for their histories
}

// CapacityOptions are NewCapacity's options.
type CapacityOptions struct {
	// Interval is the time between two evaluations. Zero means 5 s.
	Interval time.Duration
	// Window is what rates and quantiles are taken over. Zero means 5 min.
	Window time.Duration
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
	if o.Window == 0 {
		o.Window = 5 * time.Minute
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
	c := &Capacity{gatherer: gatherer, opts: o, table: KeyMetrics()}
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
	for _, m := range c.table {
		errs = append(errs, m.validate())
	}
	var err error
	c.errors, err = NewCounter(o.Registerer, BackgroundErrors)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// Run evaluates at every interval until ctx ends, and returns nil then.
func (c *Capacity) Run(ctx context.Context) error {
	e := newEvaluation(c)
	ticker := time.NewTicker(c.opts.Interval)
	defer ticker.Stop()
	for {
		e.tick(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
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
}

func newEvaluation(c *Capacity) *evaluation {
	return &evaluation{
		Capacity:  c,
		collector: newCollector(c.table, runtime.GOMAXPROCS(0)),
		examiner:  newExaminer(c.table, &c.opts),
		roster:    roster{every: c.opts.Interval, seen: map[string]sighting{}},
		window:    window{length: c.opts.Window},
		failing:   map[string]bool{},
	}
}

func (e *evaluation) tick(ctx context.Context, now time.Time) {
	families, err := e.gatherer.Gather() // what it could gather comes with the error
	e.note("gather", err)
	if e.started.IsZero() {
		e.started = now
	}
	own := &reading{Version: snapshotVersion, Started: e.started.UnixMilli(), At: now.UnixMilli(), Points: e.collector.collect(families), Vitals: e.examiner.examine(now, families, e.suspects())}
	readings, only := map[string]*reading{}, e.opts.Instance
	var degraded []string
	if e.opts.Store != nil {
		var unreadable []string
		if readings, unreadable, err = e.share(ctx, own); err == nil {
			only = ""
			degraded = describeLosses(unreadable, e.roster.see(now, readings))
		} else if ctx.Err() == nil {
			degraded = append(degraded, "the other instances' snapshots cannot be read: this report is about this instance alone")
		}
		e.note("fleet", err)
	}
	if readings == nil {
		readings = map[string]*reading{}
	}
	readings[e.opts.Instance] = own
	e.window.add(frame{at: now, readings: readings})
	e.evaluate(now, only, strings.Join(degraded, "; "))
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
