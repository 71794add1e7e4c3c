package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// Options configures a Handler. The zero value, and nil, serve reads to loopback peers and refuse writes.
type Options struct {
	// Title heads the console page and the OpenAPI document. Zero means "Operations".
	Title string
	// Tokens are the bearer tokens that are accepted. Several may share a name, for rotation. Zero means none: see
	// AllowInsecureLoopback.
	Tokens []Token
	// Authorizer identifies callers in another way, for example by client certificate. It is asked about requests
	// that bear none of Tokens, and may be called concurrently. Zero means that only Tokens are accepted.
	Authorizer func(r *http.Request) (Identity, bool)
	// AllowInsecureLoopback lets everybody on this machine write when neither Tokens nor Authorizer is set, and has no
	// effect when one is. Zero means that without them writes are refused.
	AllowInsecureLoopback bool
	// Checks are what /readyz and /health ask. Zero means none: always ready.
	Checks []Check
	// CheckTimeout is how long a probe waits for one check. Zero means 1 s.
	CheckTimeout time.Duration
	// Metrics serves /metrics. Zero means that there is no such path.
	Metrics http.Handler
	// PublicMetrics serves /metrics without a token. Zero means that it needs one as every read does.
	PublicMetrics bool
	// Timeout ends the context of an operation; its answer is then a 504. Zero means 1 min.
	Timeout time.Duration
	// MaxBody is the largest request body in bytes. Zero means 1 MiB.
	MaxBody int64
	// WriteRate is how many writes per second each actor may make, with bursts of twice as many. Zero means 20.
	WriteRate float64
	// AuditSize is how many audit records are kept for GET /api/v1/admin/audit. Zero means 1000.
	AuditSize int
	// Audit receives every audit record, on the request's goroutine and concurrently; metrics.CountWrites makes
	// one that counts them. Zero means none.
	Audit func(Record)
	// Logger receives audit records and the errors that clients do not see. Zero means none.
	Logger *slog.Logger
}

func (o *Options) withDefaults() Options {
	var c Options
	if o != nil {
		c = *o
	}
	c.Tokens = slices.Clone(c.Tokens)
	c.Checks = slices.Clone(c.Checks)
	if c.Title == "" {
		c.Title = "Operations"
	}
	if c.CheckTimeout == 0 {
		c.CheckTimeout = time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.MaxBody == 0 {
		c.MaxBody = 1 << 20
	}
	if c.WriteRate == 0 {
		c.WriteRate = 20
	}
	if c.AuditSize == 0 {
		c.AuditSize = 1000
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

var checkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("admin: "+format, args...)) }
	positive := map[string]bool{
		"CheckTimeout": o.CheckTimeout > 0, "Timeout": o.Timeout > 0, "MaxBody": o.MaxBody > 0,
		"WriteRate": o.WriteRate > 0 && o.WriteRate <= 1e9, "AuditSize": o.AuditSize > 0 && o.AuditSize <= 1_000_000,
	}
	for _, name := range slices.Sorted(maps.Keys(positive)) {
		if !positive[name] {
			bad("Options.%s is out of range: leave it zero for the default, or give a positive value", name)
		}
	}
	errs = append(errs, validateTokens(o.Tokens)...)
	seen := map[string]bool{}
	for i, c := range o.Checks {
		if !checkName.MatchString(c.Name) {
			bad("Options.Checks[%d].Name %q: use letters, digits, '.', '_' and '-', at most 64", i, c.Name)
		}
		if c.Ready == nil {
			bad("Options.Checks[%d] (%s) has no Ready function", i, c.Name)
		}
		if seen[c.Name] {
			bad("Options.Checks[%d].Name %q is taken: give each check its own", i, c.Name)
		}
		seen[c.Name] = true
	}
	return errors.Join(errs...)
}
