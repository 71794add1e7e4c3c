package readonly

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	// Exempt are net/http patterns, such as "POST /login", whose requests pass the middleware although their method
	// writes. They are matched against clean paths only. Zero means none.
	Exempt []string
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
