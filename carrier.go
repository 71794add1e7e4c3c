package scaleaware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// maxCarried bounds the cookies of one name that a request makes us verify.
const maxCarried = 4

// CarrierOptions adjust a Carrier.
type CarrierOptions struct {
	// CookieName is the cookie's name, as sent. Zero means "__Host-scaleaware", which browsers accept over TLS only
	// and never from a sibling domain; with Insecure, "scaleaware".
	CookieName string
	// Header is the name of the request and response header. Zero means "Scaleaware-Token".
	Header string
	// NoCookie leaves cookies to others: the token travels in the header only. Zero means that both are used.
	NoCookie bool
	// Insecure sends the cookie over plain HTTP too, for development. Zero means TLS only.
	Insecure bool
	// PositionTimeout bounds how long a response waits for the position of what the request wrote. When it passes,
	// the client gets an unknown Token, and its next read asks for the position. Zero means 1 s.
	PositionTimeout time.Duration
	// Logger gets failed positions and refused tokens. Zero means nothing is logged.
	Logger *slog.Logger
}

func (o *CarrierOptions) withDefaults() CarrierOptions {
	var out CarrierOptions
	if o != nil {
		out = *o
	}
	if out.CookieName == "" {
		out.CookieName = "__Host-scaleaware"
		if out.Insecure {
			out.CookieName = "scaleaware"
		}
	}
	if out.Header == "" {
		out.Header = "Scaleaware-Token"
	}
	if out.PositionTimeout == 0 {
		out.PositionTimeout = time.Second
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out
}

func (o *CarrierOptions) validate() error {
	var errs []error
	cookie := http.Cookie{Name: o.CookieName, Path: "/", Secure: true} // #nosec G124 -- never sent
	if err := cookie.Valid(); err != nil {
		errs = append(errs, fmt.Errorf("scaleaware: CarrierOptions.CookieName: %w", err))
	}
	if o.Insecure && (strings.HasPrefix(o.CookieName, "__Host-") || strings.HasPrefix(o.CookieName, "__Secure-")) {
		errs = append(errs, errors.New("scaleaware: CarrierOptions.CookieName has a prefix that browsers refuse without TLS, drop the prefix or Insecure"))
	}
	// Header names have the syntax of cookie names.
	header := http.Cookie{Name: o.Header} // #nosec G124 -- never sent
	if err := header.Valid(); err != nil {
		errs = append(errs, fmt.Errorf("scaleaware: CarrierOptions.Header %q is no header name", clip(o.Header)))
	}
	if o.PositionTimeout < 0 {
		errs = append(errs, errors.New("scaleaware: CarrierOptions.PositionTimeout is negative, want 0 for the default or more"))
	}
	return errors.Join(errs...)
}

// Carrier takes the watermark across HTTP for clients without a session: what a request wrote goes to the client as a
// signed cookie and header, and comes back with its next request, to whichever instance.
type Carrier struct {
	opts           CarrierOptions
	cookie, header *Signer
	stats          carrierStats
}

// NewCarrier returns a carrier. Instances that share a secret take each other's tokens. Cookies and headers are
// signed apart, whatever the signer's purpose.
func NewCarrier(signer *Signer, opts *CarrierOptions) (*Carrier, error) {
	c := &Carrier{opts: opts.withDefaults()}
	errs := []error{c.opts.validate()}
	if signer == nil {
		return nil, errors.Join(append(errs, errors.New("scaleaware: NewCarrier needs a Signer"))...)
	}
	var err error
	c.cookie, err = signer.For("http cookie")
	errs = append(errs, err)
	c.header, err = signer.For("http header")
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return c, nil
}

// Middleware seeds the request's Watermark from a signed cookie or header, and sends the raised one before the
// response begins. It uses the Watermark that the context already carries, or installs one. A token that is
// malformed, forged, expired or too long is counted and ignored: the request goes on as one without.
//
// What a handler writes after its response has begun cannot reach the client any more; that is counted too.
func (c *Carrier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		held := c.held(r)
		mark := WatermarkFrom(r.Context())
		if mark == nil {
			var ctx context.Context
			ctx, mark = WithWatermark(r.Context())
			r = r.WithContext(ctx)
		}
		for _, t := range held {
			mark.Raise(t)
		}
		var sent uint64
		out := BeforeResponse(w, func() error {
			sent = mark.Changes()
			c.send(r.Context(), w.Header(), mark, held)
			return nil
		})
		next.ServeHTTP(out, r)
		_ = out.Begin()
		if mark.Changes() != sent {
			c.stats.late.Add(1)
			c.opts.Logger.DebugContext(r.Context(), "scaleaware: a write after the response had begun, its position did not reach the client")
		}
	})
}

// held returns what the request carries, merged.
func (c *Carrier) held(r *http.Request) Tokens {
	held := c.verify(r.Context(), c.header, r.Header.Get(c.opts.Header))
	if c.opts.NoCookie {
		return held
	}
	for i, cookie := range r.CookiesNamed(c.opts.CookieName) {
		if i == maxCarried {
			break
		}
		held = held.Merge(c.verify(r.Context(), c.cookie, cookie.Value))
	}
	return held
}

func (c *Carrier) verify(ctx context.Context, signer *Signer, text string) Tokens {
	if text == "" {
		return nil
	}
	ts, err := signer.Verify(text)
	c.stats.count(text, err)
	if err != nil {
		c.opts.Logger.DebugContext(ctx, "scaleaware: ignored a client's token", "error", err)
	}
	return ts
}

// send writes the watermark to h if it says something that the client does not hold: that more is asked for, or where
// an unknown position was.
func (c *Carrier) send(ctx context.Context, h http.Header, mark *Watermark, held Tokens) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.PositionTimeout)
	defer cancel()
	// What a session seeds and nobody has asked for, the session keeps itself.
	written, err := mark.gather(ctx)
	if err != nil {
		c.stats.failed.Add(1)
		c.opts.Logger.WarnContext(ctx, "scaleaware: the client gets no position of its write, only that there is one", "error", err)
	}
	if held.Includes(written) {
		return
	}
	c.stats.sent.Add(1)
	h.Set(c.opts.Header, c.header.Sign(written))
	if c.opts.NoCookie {
		return
	}
	cookie := http.Cookie{ // #nosec G124 -- Secure unless Insecure is asked for
		Name: c.opts.CookieName, Value: c.cookie.Sign(written), Path: "/", MaxAge: int(c.cookie.ttl / time.Second),
		Secure: !c.opts.Insecure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	h.Add("Set-Cookie", cookie.String())
	h.Add("Cache-Control", `no-cache="Set-Cookie"`)
}
