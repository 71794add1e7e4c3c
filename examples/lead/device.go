package lead

import (
	"fmt"
	"net/http"
	"time"
)

// logoutEverywhere ends all sessions of the caller, this one too.
func (s *Service) logoutEverywhere(w http.ResponseWriter, r *http.Request) {
	n, err := s.sessions.LogoutEverywhere(r.Context(), s.sessions.Principal(r.Context()))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, map[string]int{"devices": n})
}

func (s *Service) devices(w http.ResponseWriter, r *http.Request) {
	type device struct {
		ID      string    `json:"id"`
		Since   time.Time `json:"since"`
		Agent   string    `json:"agent"`
		Current bool      `json:"current"`
	}
	all, err := s.sessions.Devices(r.Context(), s.sessions.Principal(r.Context()))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	out := make([]device, 0, len(all))
	for _, d := range all {
		out = append(out, device{d.ID, d.Since, d.Agent, d.Current})
	}
	reply(w, http.StatusOK, map[string]any{"devices": out})
}

func (s *Service) logoutDevice(w http.ResponseWriter, r *http.Request) {
	if err := s.sessions.LogoutDevice(r.Context(), s.sessions.Principal(r.Context()), r.PathValue("id")); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// events is a stream that stays open until its session ends, wherever that is done.
func (s *Service) events(w http.ResponseWriter, r *http.Request) {
	ctx, stop := s.sessions.Watch(r.Context())
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		_, err := fmt.Fprintf(w, "event: alive\ndata: %q\n\n", s.name)
		if err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			_, _ = fmt.Fprint(w, "event: logged-out\ndata: {}\n\n")
			return
		case <-s.stopping:
			return // the client comes again, to another instance
		case <-beat.C:
		}
	}
}

// EndStreams ends the streams of events, which would else hold up a shutdown. It may be called once.
func (s *Service) EndStreams() { close(s.stopping) }
