package lead

import (
	"net/http"
)

// admission lets as many requests in as can be served in time, and refuses the others at once: what waits for longer than
// its client does is work for nobody, and takes the place of what could still be served.
type admission struct{ places chan struct{} }

func newAdmission(places int) admission { return admission{make(chan struct{}, places)} }

// Handler is next for those who are let in.
func (a admission) Handler(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case a.places <- struct{}{}:
			defer func() { <-a.places }()
			next(w, r)
		default:
			busy(w)
		}
	}
}

func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	problem(w, http.StatusServiceUnavailable, "there is too much to do, try again shortly")
}
