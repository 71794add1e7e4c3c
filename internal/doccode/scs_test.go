package doccode_test

import (
	"net/http"
	"time"

	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/gomodule/redigo/redis"

	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

func Example_beforeSCS() {
	_ = func(pool *redis.Pool, mux http.Handler) http.Handler {
		sessions := scs.New()
		sessions.Lifetime = 24 * time.Hour
		sessions.Store = redisstore.New(pool)
		return sessions.LoadAndSave(mux)
	}
	_ = func(sessions *scs.SessionManager, w http.ResponseWriter, r *http.Request) {
		if err := sessions.RenewToken(r.Context()); err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		sessions.Put(r.Context(), "user", "ada")
	}
}

func Example_fromSCS() {
	_ = func(mux http.Handler) (*session.Manager, http.Handler, error) {
		rdb := redisclient.New(redisclient.Options("redis-1:6379"))
		sessions, err := session.New(rdb, &session.Options{
			Lifetime:   24 * time.Hour,
			CookieName: "session",   // scs's own, so that browsers that are logged in stay so
			TokenForm:  session.Raw, // as long as instances with plain scs run; then MoveRaw, and a Lifetime later nothing
		})
		if err != nil {
			return nil, nil, err
		}
		return sessions, sessions.Middleware(mux), nil
	}
	_ = func(sessions *session.Manager, w http.ResponseWriter, r *http.Request) {
		if err := sessions.Login(r.Context(), "ada"); err != nil { // renews the token, too
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		sessions.SCS().Put(r.Context(), "language", "en") // scs as before, with r.Context()
	}
	_ = func(sessions *session.Manager, r *http.Request) (int, error) {
		return sessions.LogoutEverywhere(r.Context(), "ada")
	}
}
