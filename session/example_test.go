package session_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/alexedwards/scs/v2/memstore"

	"github.com/scaleaware/scaleaware/session"
)

// A service types session.New(rdb, nil) instead, with a client from redisclient.New.
func Example() {
	sessions, err := session.NewWithStore(memstore.NewWithCleanupInterval(0), nil)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.Login(r.Context(), "ada"); err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		sessions.SCS().Put(r.Context(), "language", "en") // scs, as its users know it
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("user %q, language %q\n", session.Principal(r.Context()), sessions.SCS().GetString(r.Context(), "language"))
	})
	handler := sessions.Middleware(mux)

	login := httptest.NewRecorder()
	handler.ServeHTTP(login, httptest.NewRequest("POST", "/login", nil))

	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	home := httptest.NewRequest("GET", "/", nil)
	home.AddCookie(login.Result().Cookies()[0])
	handler.ServeHTTP(httptest.NewRecorder(), home)
	// Output:
	// user "", language ""
	// user "ada", language "en"
}
