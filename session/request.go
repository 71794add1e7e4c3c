package session

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scaleaware/scaleaware"
)

// rememberKey is where scs keeps RememberMe.
const rememberKey = "__rememberMe"

type (
	requestKey struct{ m *Manager }
	currentKey struct{}
)

// request is one request under a manager, and its context: what asks it for scs's session data makes it load them.
type request struct {
	context.Context // of the request that came in
	manager         *Manager
	out             *scaleaware.ResponseWriter
	mark            *scaleaware.Watermark
	began           time.Time
	token           string // of the cookie
	agent           string // the User-Agent
	before          uint64 // the watermark's changes when the request came
	vary            [1]string

	mu                 sync.Mutex
	policy             StoreDown
	fetched            bool
	err                error // the store did not answer
	degraded           bool  // so nothing is stored
	refused            bool  // and the response is to say so
	loaded             loaded
	view               view
	held               scaleaware.Tokens // the session's tokens that the watermark knows of: those loaded, then those stored
	data               any               // scs's, once somebody wants them
	idle               time.Duration     // with which the session is stored
	revoked, revokedTo string            // whom this request has logged out everywhere, and the generation since
	renewal            renewal
	login              bool // Login was called: the response must not say so unless it is stored

	// What was stored when the response began.
	changes uint64
	status  scs.Status
	kept    snapshot
}

func (m *Manager) request(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{m}).(*request)
	return q
}

// Value implements context.Context.
func (q *request) Value(key any) any {
	switch key {
	case q.manager.scsKey:
		return q.materialise()
	case currentKey{}:
		return q
	case loadedKey{}:
		return &q.loaded
	case idleKeyOf{}:
		return &q.idle
	case renewalKey{}:
		return &q.renewal
	}
	if k, ok := key.(requestKey); ok && k.m == q.manager {
		return q
	}
	return q.Context.Value(key)
}

// Tokens implements scaleaware.Seed.
func (q *request) Tokens() scaleaware.Tokens {
	_ = q.fetch()
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}

// fetch loads the session if that was not tried yet.
func (q *request) fetch() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.load(q.Context)
	return q.err
}

// materialise returns scs's session data, which scs finds nowhere but in a context.
func (q *request) materialise() any {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.data == nil {
		q.load(q.Context)
		token := ""
		if q.loaded.found {
			token = q.loaded.token
		}
		ctx, err := q.manager.scs.Load(withLoaded(q.Context, &q.loaded), token)
		if err != nil { // the codec was changed since load used it
			ctx, _ = q.manager.scs.Load(q.Context, "")
		}
		q.data = ctx.Value(q.manager.scsKey)
	}
	return q.data
}

// used reports whether scs's data were asked for, so that they may have changed.
func (q *request) used() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.data != nil
}

// get returns a value: as it was stored, or as the handler has changed it.
func (q *request) get(key string) any {
	_ = q.fetch()
	if q.used() {
		return q.manager.scs.Get(q, key)
	}
	return q.view.get(key)
}

func (q *request) text(key string) string {
	_ = q.fetch()
	if q.used() {
		return q.manager.scs.GetString(q, key)
	}
	return q.view.text(key)
}

// snapshot is a session's values at one moment.
type snapshot struct {
	keys   []string
	values []any
}

func (q *request) snapshot() snapshot {
	m := q.manager
	s := snapshot{keys: m.scs.Keys(q)}
	s.values = make([]any, len(s.keys))
	for i, k := range s.keys {
		s.values[i] = m.scs.Get(q, k)
	}
	return s
}

// cookie returns the request's session token, or the empty string if there is none of the right form. Of two different
// ones neither is trusted. It reads what http.Request.CookiesNamed reads, and keeps nothing.
func (m *Manager) cookie(r *http.Request) string {
	const space = " \t\r\n"
	token := ""
	for _, line := range r.Header["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(strings.Trim(part, space), "=")
			if strings.Trim(name, space) != m.scs.Cookie.Name {
				continue
			}
			if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			switch {
			case !wellFormed(value):
				m.count("cookie", "malformed")
			case token != "" && token != value:
				m.count("cookie", "ambiguous")
				return ""
			default:
				token = value
			}
		}
	}
	return token
}
