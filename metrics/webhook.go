package metrics

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Webhook tells an HTTP receiver of alerts in the form of Alertmanager's webhook, version 4, so that what takes
// Alertmanager's notifications takes ours. Give it to [CapacityOptions]; without a Prometheus it is all that is needed.
//
// Alerts are grouped, a group is told again when it changes or after RepeatInterval, and alerts that end are told once
// more as resolved, for up to a day after their end if nothing arrives before. A warning is not told while the critical
// alert of the same metric and scope fires. Of instances that share a store one sends: the one that has evaluated longest
// and whose last notifications arrived. All of them know what it has sent, so that another goes on where it stopped.
//
// A message that cannot be delivered is tried again, at longer and longer intervals, with what is true by then: at most
// one message a group waits. A receiver must bear to be told twice.
type Webhook struct {
	url    *url.URL
	opts   WebhookOptions
	counts *prometheus.CounterVec
	wake   chan struct{}

	mu       sync.Mutex
	alerts   []Alert // firing and resolved
	now      time.Time
	leading  bool
	groups   map[string]*sentGroup
	failing  time.Time // since when no message has arrived
	lastFail time.Time
	logged   bool
}

// WebhookOptions are NewWebhook's options.
type WebhookOptions struct {
	// Receiver is the name in the message. Zero means "scaleaware".
	Receiver string
	// GroupBy are the labels whose values make one message. Zero means alertname.
	GroupBy []string
	// GroupWait is how long a new group waits for more alerts. Zero means 10 s.
	GroupWait time.Duration
	// GroupInterval is the least time between two messages of a group that changes. Zero means 1 min.
	GroupInterval time.Duration
	// RepeatInterval is after what time a group that goes on firing is told again. Zero means 4 h.
	RepeatInterval time.Duration
	// Timeout is for one attempt. Zero means 10 s.
	Timeout time.Duration
	// Header is sent with each message, such as Authorization. It is never logged. Zero means none.
	Header http.Header
	// ExternalURL is where the console is found, for the links in the message. Zero means no links.
	ExternalURL string
	// Client makes the requests; redirects are never followed. Zero means one with the default transport.
	Client *http.Client
	// Logger gets failures, without the URL's secrets. Zero means that they are only counted.
	Logger *slog.Logger
	// Registerer exports the count of messages. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

const (
	// maxGroups and maxAlerts bound what waits and what one message has.
	maxGroups = 100
	maxAlerts = 100
	// failingAfter is how long nothing may arrive before another instance sends, failingFor how long that is remembered.
	failingAfter = time.Minute
	failingFor   = 5 * time.Minute
	// owedFor is how long after its end an alert is told as resolved.
	owedFor = 24 * time.Hour
)

// NewWebhook makes a Webhook that posts to address. Whatever is secret in address stays out of errors and logs.
func NewWebhook(address string, opts *WebhookOptions) (*Webhook, error) {
	o := WebhookOptions{}
	if opts != nil {
		o = *opts
	}
	var errs []error
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, errors.New("metrics: NewWebhook needs an address such as https://example.com/hook"))
	}
	for name, d := range map[string]*time.Duration{
		"GroupWait": &o.GroupWait, "GroupInterval": &o.GroupInterval, "RepeatInterval": &o.RepeatInterval, "Timeout": &o.Timeout,
	} {
		if *d < 0 {
			errs = append(errs, fmt.Errorf("metrics: WebhookOptions.%s is %v, give a positive time, or 0 for the default", name, *d))
		}
		if *d == 0 {
			*d = map[string]time.Duration{"GroupWait": 10 * time.Second, "GroupInterval": time.Minute, "RepeatInterval": 4 * time.Hour, "Timeout": 10 * time.Second}[name]
		}
	}
	if o.Receiver == "" {
		o.Receiver = "scaleaware"
	}
	if len(o.GroupBy) == 0 {
		o.GroupBy = []string{"alertname"}
	}
	o.GroupBy = slices.Sorted(slices.Values(o.GroupBy))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.Client = &client
	o.Header = o.Header.Clone()
	w := &Webhook{url: u, opts: o, wake: make(chan struct{}, 1), groups: map[string]*sentGroup{}}
	w.counts, err = NewCounter(o.Registerer, Notifications)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return w, nil
}

// run sends until ctx ends.
func (w *Webhook) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			w.flush(ctx)
		}
	}
}

// publish takes the alerts of a tick. It never waits.
func (w *Webhook) publish(now time.Time, leading bool, alerts []Alert) {
	w.mu.Lock()
	w.now, w.leading, w.alerts = now, leading, append(alerts, w.forgotten(alerts)...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// flush sends what is due, one message after another.
func (w *Webhook) flush(ctx context.Context) {
	for _, m := range w.due() {
		err := w.post(ctx, m.payload)
		if ctx.Err() != nil {
			return
		}
		w.done(m, err)
	}
}

// retryError is a failure that may pass.
type retryError struct {
	err   error
	after time.Duration
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

func (w *Webhook) post(ctx context.Context, payload *webhookMessage) error {
	blob, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(blob))
	if err != nil {
		return w.hide(err)
	}
	for name, values := range w.opts.Header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "scaleaware")
	resp, err := w.opts.Client.Do(req)
	if err != nil {
		return &retryError{err: w.hide(err)}
	}
	defer func() {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
		_ = resp.Body.Close()
	}()
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil
	case code/100 == 5 || code == http.StatusTooManyRequests:
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return &retryError{fmt.Errorf("metrics: the receiver at %s answers %d", w.url.Host, code), time.Duration(min(max(after, 0), 3600)) * time.Second}
	case code/100 == 3:
		return fmt.Errorf("metrics: the receiver at %s answers %d: give NewWebhook the address that it redirects to", w.url.Host, code)
	default:
		return fmt.Errorf("metrics: the receiver at %s answers %d: look at its address and at the Authorization header", w.url.Host, code)
	}
}

// hide leaves the URL out of an error: its path and query are often the only secret there is.
func (w *Webhook) hide(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("metrics: post to the receiver at %s: %w", w.url.Host, err)
}
