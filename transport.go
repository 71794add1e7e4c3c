package scaleaware

import (
	"context"
	"net/http"
)

// Transport takes the watermark of a request's context to another service and back: it adds the signed header, and
// raises the Watermark by the one that the response carries. The other service runs Middleware of a Carrier with the
// same secret and Header. Use it for services of one's own only: the token goes wherever the client goes. A nil base
// means http.DefaultTransport.
func (c *Carrier) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{carrier: c, base: base}
}

type transport struct {
	carrier *Carrier
	base    http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	c := t.carrier
	mark := WatermarkFrom(r.Context())
	if mark == nil {
		return t.base.RoundTrip(r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.opts.PositionTimeout)
	written, err := mark.Written(ctx)
	cancel()
	if err != nil {
		c.stats.failed.Add(1)
		c.opts.Logger.WarnContext(r.Context(), "scaleaware: a call to another service goes without the position of a write, only with the word that there is one", "error", err)
	}
	if len(written) > 0 {
		c.stats.sent.Add(1)
		r = r.Clone(r.Context()) // a RoundTripper must not change the caller's request
		r.Header.Set(c.opts.Header, c.header.Sign(written))
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	for _, token := range c.verify(r.Context(), c.header, resp.Header.Get(c.opts.Header)) {
		mark.Settle(written.For(token.System), token) // the other service has asked, or would have repeated what it got
		mark.Raise(token)
	}
	return resp, nil
}
