package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// HTTP measures requests: rate, errors, duration, and how many are being served.
type HTTP struct {
	routes *routeTable
	trace  func(context.Context) string
	active prometheus.Gauge
}

// HTTPOptions are NewHTTP's options.
type HTTPOptions struct {
	// MaxRoutes is how many routes are told apart that no http.ServeMux vouches for, such as those of another router;
	// requests to further ones are counted under the route _OTHER. The patterns of a mux that Middleware or Routes
	// wraps do not count, for they are as many as the program registers. Zero means 1000.
	MaxRoutes int
	// Trace returns the id of the trace that a request is part of, or "": with OpenTelemetry that of
	// trace.SpanContextFromContext, when it is sampled. The id becomes an exemplar of the request's duration, which
	// Handler serves in the OpenMetrics format. The tracing middleware must be outside of this one. Zero means none,
	// and costs nothing.
	Trace func(context.Context) string
}

// NewHTTP makes the HTTP series in reg. A nil reg means counted, not exported.
func NewHTTP(reg prometheus.Registerer, opts *HTTPOptions) (*HTTP, error) {
	o := HTTPOptions{}
	if opts != nil {
		o = *opts
	}
	if o.MaxRoutes == 0 {
		o.MaxRoutes = 1000
	}
	var errs []error
	if o.MaxRoutes < 0 {
		errs = append(errs, fmt.Errorf("metrics: HTTPOptions.MaxRoutes is %d, give a positive number or 0 for the default", o.MaxRoutes))
	}
	durations, err := NewHistogram(reg, HTTPRequestDuration)
	errs = append(errs, err)
	active, err := NewGauge(reg, HTTPActiveRequests)
	errs = append(errs, err)
	overflow, err := NewCounter(reg, HTTPRouteOverflow)
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &HTTP{
		routes: newRouteTable(o.MaxRoutes, durations, overflow.WithLabelValues()),
		trace:  o.Trace,
		active: active.WithLabelValues(),
	}, nil
}

// Middleware measures what next serves. The route label is the pattern that the http.ServeMux matched, without its
// method; "unmatched" when none did. Where next is not the mux itself, because other middleware stands between them,
// wrap the mux with [Routes]: middleware that calls Request.WithContext hides the pattern from us otherwise.
//
// A panic counts as 5xx and goes on. A server error written after the client has gone away counts as 4xx. The code is
// the final one: 1xx responses are passed on and not counted. A hijacked connection is measured until it is hijacked,
// with code 1xx. The response writer given to next offers Flush, Hijack and ReadFrom where the original does, and the
// rest through [http.ResponseController].
//
// No client can add a route, whatever paths, methods and hosts it invents: a request that no pattern matches is
// "unmatched", and MaxRoutes keeps out what a router might make of paths, without a loss for the mux's own routes.
func (h *HTTP) Middleware(next http.Handler) http.Handler {
	mux, direct := next.(*http.ServeMux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := newExchange(h.active, w, r)
		h.active.Inc()
		if !direct {
			r = r.WithContext(context.WithValue(r.Context(), placeKey{}, &e.place))
		}
		defer h.finish(e, r, mux)
		next.ServeHTTP(e.writer(), r)
		e.returned = true
	})
}

// finish is deferred itself, so that recover works and the panicking frames stay on the stack.
func (h *HTTP) finish(e *exchange, r *http.Request, mux *http.ServeMux) {
	thrown := recover()
	if !e.hijacked {
		h.active.Dec()
	}
	took := e.elapsed()
	pattern := e.route(r)
	route := h.routes.find(pattern)
	if route == nil {
		route = h.routes.add(pattern, e.vouched(pattern, r, mux))
	}
	trace := ""
	if h.trace != nil {
		trace = h.trace(r.Context())
	}
	route.observe(r.Method, e.class(thrown, r), took, trace)
	if thrown != nil {
		panic(thrown)
	}
}
