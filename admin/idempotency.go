package admin

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

const (
	maxKeys      = 1000
	maxKeyBytes  = 255
	maxKept      = 256 << 10 // bytes of a reply
	keptFor      = 24 * time.Hour
	replayHeader = "Idempotency-Replayed"
)

// repeats remembers what writes with an Idempotency-Key were answered, so that a client that has lost an answer may ask
// again without doing it twice. It is this instance's, and bounded.
type repeats struct {
	mu    sync.Mutex
	kept  map[repeatKey]*repeat
	order []repeatKey // oldest first
}

type repeatKey struct{ actor, key string }

type repeat struct {
	print    [sha256.Size]byte // of the request
	at       time.Time
	done     bool
	status   int
	location string
	reply    []byte
	problem  *Problem
}

// idempotencyKey returns the request's key, or "".
func idempotencyKey(r *http.Request) (string, error) {
	values := r.Header["Idempotency-Key"]
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	if len(values) > 1 || key == "" || len(key) > maxKeyBytes || !printable(key) {
		return "", Invalid("Idempotency-Key", "send one Idempotency-Key of 1 to %d printable characters, a new one for each thing to be done", maxKeyBytes)
	}
	return key, nil
}

// fingerprint is what has to be the same for a request to be a repetition.
func fingerprint(r *http.Request, body []byte) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range []string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// begin returns what the key's first request was answered, or nil when this is the first; finish has to follow then.
func (s *repeats) begin(k repeatKey, print [sha256.Size]byte, now time.Time) (*repeat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[repeatKey]*repeat{}
	}
	if old := s.kept[k]; old != nil && now.Sub(old.at) < keptFor {
		switch {
		case old.print != print:
			return nil, problem(http.StatusUnprocessableEntity, "this Idempotency-Key was used for another request: take a new one")
		case !old.done:
			p := Conflict("the request with this Idempotency-Key is still being served: ask again")
			p.RetryAfter = 1
			return nil, p
		}
		return old, nil
	}
	s.forget(k)
	for i := 0; len(s.order) >= maxKeys && i < len(s.order); { // the oldest that has been answered
		if s.kept[s.order[i]].done {
			s.forget(s.order[i])
			continue
		}
		i++
	}
	if len(s.order) >= maxKeys {
		return nil, Unavailable(nil, "%d requests with an Idempotency-Key are being served: ask again", maxKeys)
	}
	s.kept[k] = &repeat{print: print, at: now}
	s.order = append(s.order, k)
	return nil, nil
}

// finish keeps an answer. What was not done, or may be done by asking again, is forgotten.
func (s *repeats) finish(k repeatKey, reply any, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.kept[k]
	if r == nil {
		return
	}
	data, encodeErr := encode(reply)
	if err != nil && asProblem(err).Status >= 500 || err == nil && (encodeErr != nil || len(data) > maxKept) {
		s.forget(k)
		return
	}
	r.done, r.status, r.reply = true, http.StatusOK, data
	if err != nil {
		r.problem = asProblem(err)
	}
	if started, ok := reply.(*Started); ok && started != nil {
		r.status, r.location = http.StatusAccepted, started.Status
	}
}

func (s *repeats) forget(k repeatKey) {
	if s.kept[k] == nil {
		return
	}
	delete(s.kept, k)
	for i, other := range s.order {
		if other == k {
			s.order = append(s.order[:i], s.order[i+1:]...)
			return
		}
	}
}

// write answers a repetition.
func (r *repeat) write(w http.ResponseWriter) error {
	w.Header().Set(replayHeader, "true")
	if r.problem != nil {
		return r.problem
	}
	if r.location != "" {
		w.Header().Set("Location", r.location)
	}
	writeJSON(w, "application/json", r.status, r.reply)
	return nil
}
