package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// StoreDown says what becomes of a request with a session cookie while the store does not answer.
type StoreDown int

const (
	// Refuse answers 503 with Retry-After. A handler that has begun before it uses the session finds an empty one, and its
	// answer is replaced; see Manager.OnStoreDown for refusing before the handler begins.
	Refuse StoreDown = iota
	// Anonymous serves the request as if it had no session. Nothing is stored and no cookie is touched, so that the
	// client is logged in again when the store is back.
	Anonymous
	// Degrade serves what this process last read of the session, if that was within a minute, and as Anonymous does
	// otherwise. Nothing is stored. A log-out that this process was not told of before Redis failed goes unnoticed.
	Degrade
)

// String returns the policy's name in lower case.
func (d StoreDown) String() string {
	switch d {
	case Anonymous:
		return "anonymous"
	case Degrade:
		return "degrade"
	default:
		return "refuse"
	}
}

// Options adjust a Manager or a Store.
type Options struct {
	// Lifetime is how long a session lasts from its beginning or its last login. Zero means 24 hours.
	Lifetime time.Duration
	// IdleTimeout ends a session that was not used for so long. A request that uses it refreshes it in the command
	// that reads it; one that does not use it does not count. SetIdleTimeout gives one session another. Zero means that only Lifetime counts.
	IdleTimeout time.Duration
	// CookieName is the cookie's name as sent. A service that comes from scs keeps its name here to keep its users
	// logged in. Zero means "__Host-session", which browsers accept over TLS only and never from a sibling domain;
	// with Insecure, "session".
	CookieName string
	// Insecure sends the cookie over plain HTTP too, for development. Zero means TLS only.
	Insecure bool
	// Prefix begins every key. It must not lie under the prefix of a cache, whose invalidation would log everybody out.
	// Zero means "scs:session:", as in scs/redisstore.
	Prefix string
	// TokenForm says how tokens stand in the keys. Zero means Hashed.
	TokenForm TokenForm
	// Secrets encrypt what is stored, with AES-256-GCM under keys derived from them by HKDF-SHA256, and bind it to its key.
	// The first one encrypts, all decrypt. To rotate, add a new one at the end on every instance, then move it to the front,
	// and remove the old one a Lifetime later. Each has 32 bytes or more. scs/redisstore cannot read what is encrypted.
	// Zero means that what is stored is not encrypted.
	Secrets []string
	// AcceptPlain also reads sessions that are not encrypted although there are Secrets: set it for one Lifetime when
	// encryption begins. Zero means that such a session is taken for forged, and its owner gets a new one.
	AcceptPlain bool
	// Strict asks Redis at each load whether its principal was logged out everywhere: one command more. Zero means that an
	// answer counts for a second, or for ten while Manager.Run hears the news and sees the list of the latest ones, so that an
	// instance may miss a LogoutEverywhere for a second at most, and with Run for 300 ms and a round trip, even if Redis loses
	// the news. Only if the list could not be written either, which is logged where it was tried, is it ten.
	Strict bool
	// OnStoreDown decides about requests that use a session while the store does not answer. Manager.OnStoreDown does it for
	// one route. Zero means Refuse.
	OnStoreDown StoreDown
	// StoreTimeout bounds each call to the store, below the deadline that the request may have. Zero means 500 ms.
	StoreTimeout time.Duration
	// PositionTimeout bounds how long a response waits for the database position of what the request wrote. Zero
	// means 1 s.
	PositionTimeout time.Duration
	// Logger gets failures. Zero means nothing is logged.
	Logger *slog.Logger
	// Registerer gets the counter of store operations. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Lifetime == 0 {
		out.Lifetime = 24 * time.Hour
	}
	if out.CookieName == "" {
		out.CookieName = "__Host-session"
		if out.Insecure {
			out.CookieName = "session"
		}
	}
	if out.Prefix == "" {
		out.Prefix = "scs:session:"
	}
	if out.StoreTimeout == 0 {
		out.StoreTimeout = 500 * time.Millisecond
	}
	if out.PositionTimeout == 0 {
		out.PositionTimeout = time.Second
	}
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out
}

func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("session: Options."+format, args...)) }
	if o.Lifetime < time.Second {
		bad("Lifetime is %v, want a second or more", o.Lifetime)
	}
	if o.IdleTimeout < 0 || o.IdleTimeout > 0 && o.IdleTimeout < time.Second {
		bad("IdleTimeout is %v, want 0 for none, or a second or more", o.IdleTimeout)
	}
	if o.StoreTimeout < 0 {
		bad("StoreTimeout is %v, want 0 for the default or more", o.StoreTimeout)
	}
	if o.PositionTimeout < 0 {
		bad("PositionTimeout is %v, want 0 for the default or more", o.PositionTimeout)
	}
	cookie := http.Cookie{Name: o.CookieName} // #nosec G124 -- never sent
	if err := cookie.Valid(); err != nil {
		bad("CookieName %q is no cookie name, want letters, digits, - and _", o.CookieName)
	}
	if o.Insecure && (strings.HasPrefix(o.CookieName, "__Host-") || strings.HasPrefix(o.CookieName, "__Secure-")) {
		bad("CookieName %q has a prefix that browsers refuse without TLS, drop the prefix or Insecure", o.CookieName)
	}
	if strings.ContainsAny(o.Prefix, "*?[]{}\\^\x00\r\n ") {
		bad("Prefix %q has a space, a brace or a character of glob patterns, want plain text like scs:shop:", o.Prefix)
	}
	if o.TokenForm < Hashed || o.TokenForm > Raw {
		bad("TokenForm is %d, want Hashed, MoveRaw or Raw", o.TokenForm)
	}
	for i, secret := range o.Secrets {
		if len(secret) < minSecret {
			bad("Secrets: number %d of %d has %d bytes, want %d or more; openssl rand -base64 32 makes one", i+1, len(o.Secrets), len(secret), minSecret)
		}
	}
	if o.OnStoreDown < Refuse || o.OnStoreDown > Degrade {
		bad("OnStoreDown is %d, want Refuse, Anonymous or Degrade", o.OnStoreDown)
	}
	return errors.Join(errs...)
}
