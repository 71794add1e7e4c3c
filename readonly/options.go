package readonly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/admin"
)

// Options configure a Switch.
type Options struct {
	// Instance names this process among those that share the store. Zero means host name and process id.
	Instance string
	// Poll is how often the store is read, whatever is pushed. Zero means 250 ms.
	Poll time.Duration
	// AckWait is how long Enable and Disable wait for every living instance to obey. Zero means 2 s.
	AckWait time.Duration
	// AssumeWritable allows writes while the state is not known yet, that is before Run has reached the store for
	// the first time. Zero means that they are refused.
	AssumeWritable bool
	// Isolated is how long an instance goes on writing that cannot reach the store: at most 50 s, because one that is silent
	// for a minute is taken for dead and not waited for. With it, held is true of an instance as well that is cut off from
	// the store and not from the database; the price is that without the store writes end. Zero means that it goes on, by
	// the last state that it knew.
	Isolated time.Duration
	// Exempt are net/http patterns, such as "POST /login", whose requests pass the middleware although their method
	// writes. They are matched against clean paths only. Zero means none.
	Exempt []string
	// Status answers refused requests: 503, or 403, 423 or 429 where something between takes a 503 for a fault. Zero means
	// 503.
	Status int
	// Staff says whether a write is one of staff's, which tier Staff lets pass. It is asked while that tier holds, for each
	// write, with the request's context or the job's. Zero means that tier Staff cannot be enabled here, and is obeyed as
	// Full.
	Staff func(ctx context.Context) bool
	// Tenant says whose a write is. While only some tenants' writes are refused, one of an unknown tenant is refused too.
	// Zero means that tenants cannot be given here, and that all writes are refused when others give them.
	Tenant func(ctx context.Context) (tenant string, known bool)
	// Witness proves that the database is quiet. Zero means that no Report says held.
	Witness Witness
	// Audit gets a record of each change that a Keeper or the end of an incident made, on every instance that comes to obey
	// it. admin.Handler.Record is made for it. Zero means that they are logged only.
	Audit func(admin.Record)
	// RetryAfter is the shortest wait told to clients; up to as much again is added at random, so that they do not
	// return together. Zero means 5 s.
	RetryAfter time.Duration
	// Logger gets changes and background failures. Zero means that they are discarded.
	Logger *slog.Logger
	// Registerer gets the metrics. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Instance == "" {
		host, _ := os.Hostname()
		out.Instance = host + "-" + strconv.Itoa(os.Getpid())
	}
	if out.Poll == 0 {
		out.Poll = 250 * time.Millisecond
	}
	if out.AckWait == 0 {
		out.AckWait = 2 * time.Second
	}
	if out.Status == 0 {
		out.Status = http.StatusServiceUnavailable
	}
	if out.RetryAfter == 0 {
		out.RetryAfter = 5 * time.Second
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out
}

func (o Options) validate() error {
	var errs []error
	positive := func(name string, d time.Duration) {
		if d < 0 {
			errs = append(errs, fmt.Errorf("readonly: Options.%s is %v, want a positive duration", name, d))
		}
	}
	positive("Poll", o.Poll)
	positive("AckWait", o.AckWait)
	positive("RetryAfter", o.RetryAfter)
	if o.Isolated != 0 && (o.Isolated < missedPolls*o.Poll || o.Isolated > mostIsolated) {
		errs = append(errs, fmt.Errorf("readonly: Options.Isolated is %v, want %d polls (%v) to %v", o.Isolated, missedPolls, missedPolls*o.Poll, mostIsolated))
	}
	switch o.Status {
	case http.StatusServiceUnavailable, http.StatusForbidden, http.StatusLocked, http.StatusTooManyRequests:
	default:
		errs = append(errs, fmt.Errorf("readonly: Options.Status is %d, want 503, 403, 423 or 429", o.Status))
	}
	return errors.Join(errs...)
}

// exemptions turns the patterns into a mux that is only asked, never served.
func exemptions(patterns []string) (mux *http.ServeMux, err error) {
	mux = http.NewServeMux()
	for _, pattern := range patterns {
		func() {
			defer func() {
				if p := recover(); p != nil {
					err = errors.Join(err, fmt.Errorf("readonly: Options.Exempt: %q is no pattern of net/http.ServeMux, or given twice: %v", pattern, p))
				}
			}()
			mux.HandleFunc(pattern, http.NotFound)
		}()
	}
	return mux, err
}
