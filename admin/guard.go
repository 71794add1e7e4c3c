package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// loopbackActor is the actor of requests that are trusted for coming from this machine.
const loopbackActor = "loopback"

// guard decides who makes a request, and whether that one may.
type guard struct {
	keys             keyring
	authorizer       func(*http.Request) (Identity, bool)
	insecureLoopback bool
	origins          *http.CrossOriginProtection
}

// closed reports whether a caller has to prove who it is.
func (g *guard) closed() bool { return len(g.keys.digests) > 0 || g.authorizer != nil }

func (g *guard) identify(r *http.Request) (Identity, *Problem) {
	if g.closed() {
		return g.authenticate(r)
	}
	if why := untrusted(r); why != "" {
		return Identity{}, problem(http.StatusForbidden, "no token is configured, so only callers on this machine are served, and %s: set Options.Tokens", why)
	}
	if g.insecureLoopback {
		return Identity{Name: loopbackActor, Role: Operator}, nil
	}
	return Identity{Name: loopbackActor, Role: Viewer}, nil
}

func (g *guard) authenticate(r *http.Request) (Identity, *Problem) {
	secret, given := bearer(r)
	if given && secret != "" {
		if id, ok := g.keys.find(secret); ok {
			return id, nil
		}
	}
	if g.authorizer != nil {
		if id, ok := g.authorizer(r); ok {
			return id, nil
		}
	}
	if len(r.Header["Authorization"]) == 0 {
		return Identity{}, problem(http.StatusUnauthorized, "send a token: Authorization: Bearer <token>")
	}
	return Identity{}, problem(http.StatusUnauthorized, "the credentials are not valid: send one Authorization: Bearer <token> with a token that is configured")
}

// bearer returns the token of the one Authorization header; two headers are ambiguous and count as none.
func bearer(r *http.Request) (secret string, given bool) {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return "", false
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.Trim(secret, " "), true
}

// admit decides whether an identified caller may use the route. It knows nothing of the route but its role.
func (g *guard) admit(r *http.Request, id Identity, role Role, write bool) *Problem {
	if write {
		if err := g.origins.Check(r); err != nil {
			p := problem(http.StatusForbidden, "a browser sent this request from another site's page: use the console page of this listener, or curl")
			p.Cause = err
			return p
		}
	}
	switch {
	case id.Role == Operator, id.Role == Viewer && role == Viewer:
		return nil
	case id.Name == loopbackActor && !g.closed():
		return problem(http.StatusForbidden, "no token is configured, so nothing can be changed: set Options.Tokens (ADMIN_TOKEN in the examples), or Options.AllowInsecureLoopback on a machine that is yours alone")
	}
	return problem(http.StatusForbidden, "the token's role is viewer and this needs operator: use an operator's token")
}

// forwarded are headers that a proxy adds: with one of them the peer's address says nothing about who asks.
var forwarded = []string{
	"X-Forwarded-For", "Forwarded", "X-Real-Ip", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server",
	"X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Via",
}

// untrusted says why a request does not come from a person on this machine, or "".
func untrusted(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return "this one comes from elsewhere"
	}
	for _, name := range forwarded {
		if _, ok := r.Header[name]; ok {
			return "a proxy forwarded this one (" + name + ")"
		}
	}
	if !loopbackHost(r.Host) {
		// A page whose name was re-bound to 127.0.0.1 reaches us with its own name in Host.
		return "this one names another host than localhost"
	}
	return ""
}

func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(strings.TrimSuffix(name, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
