package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Handler serves operations. It can be mounted under any prefix with http.StripPrefix.
type Handler struct {
	opts       Options
	mux        *http.ServeMux
	routes     []*route
	guard      guard
	limiter    *limiter
	journal    *journal
	background *Background
	repeats    repeats
	log        *slog.Logger

	bodyTimeout time.Duration
}

// New mounts operations together with health, audit, background status, /openapi.json and the console page. Its error
// joins all mistakes in operations and options. It starts nothing.
func New(operations []Operation, options *Options) (*Handler, error) {
	opts := options.withDefaults()
	h := &Handler{
		opts: opts,
		mux:  http.NewServeMux(),
		guard: guard{
			keys: newKeyring(opts.Tokens), authorizer: opts.Authorizer,
			insecureLoopback: opts.AllowInsecureLoopback, origins: http.NewCrossOriginProtection(),
		},
		limiter:    newLimiter(opts.WriteRate),
		background: newBackground(opts.Logger),
		log:        opts.Logger,

		bodyTimeout: bodyTimeout,
	}
	h.journal = newJournal(opts.AuditSize, opts.Audit, opts.Logger)
	errs := []error{opts.validate()}

	health := newHealth(opts.Checks, opts.CheckTimeout)
	page, err := newConsole(opts.Title, h, health)
	if err != nil {
		return nil, err
	}
	document := &document{title: opts.Title, handler: h}
	for _, op := range slices.Concat(health.operations(), page.operations()) {
		errs = append(errs, h.mount(op, true))
	}
	builtin := slices.Concat(page.guardedOperations(), h.background.operations(), h.journal.operations(), document.operations())
	if opts.Metrics != nil {
		errs = append(errs, h.mount(Operation{
			Method: http.MethodGet, Path: "/metrics", ID: "admin.metrics", Summary: "Prometheus exposition.", Handler: opts.Metrics,
		}, opts.PublicMetrics))
	}
	for _, op := range slices.Concat(builtin, operations) {
		errs = append(errs, h.mount(op, false))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	page.prepare()
	if err := document.prepare(); err != nil {
		return nil, err
	}
	return h, nil
}

// Run owns the background work of operations: it takes work until ctx ends, then cancels what runs, waits for it and
// returns nil. It may be called once.
func (h *Handler) Run(ctx context.Context) error { return h.background.run(ctx) }

// ServeHTTP serves the operations.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	if r.ContentLength != 0 && r.Body != http.NoBody {
		// net/http reads what is left of a body before it answers, so a refusal needs the deadline too. Writers that
		// have none, as in tests, say so.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.bodyTimeout))
	}
	if r.Method != http.MethodConnect && canonical(r.URL.EscapedPath()) {
		if _, pattern := h.mux.Handler(r); pattern != "" {
			h.mux.ServeHTTP(w, r)
			return
		}
	}
	h.unmatched(w, r)
}

// unmatched answers what no operation does. It tells strangers nothing about which paths exist.
func (h *Handler) unmatched(w http.ResponseWriter, r *http.Request) {
	if _, refusal := h.guard.identify(r); refusal != nil {
		h.fail(w, r, "", refusal)
		return
	}
	if allow := h.allowed(r); allow != "" {
		w.Header().Set("Allow", allow)
		h.fail(w, r, "", problem(http.StatusMethodNotAllowed, "this path does not take %s: use %s", clip(r.Method), allow))
		return
	}
	h.fail(w, r, "", NotFound("there is no such path: GET /openapi.json lists what there is"))
}

// allowed lists the methods of the path, or "" if there is none.
func (h *Handler) allowed(r *http.Request) string {
	if !canonical(r.URL.EscapedPath()) {
		return ""
	}
	var methods []string
	for _, method := range []string{"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"} {
		probe := &http.Request{Method: method, URL: r.URL, Host: r.Host}
		if _, pattern := h.mux.Handler(probe); pattern != "" {
			methods = append(methods, method)
		}
	}
	return strings.Join(methods, ", ")
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
