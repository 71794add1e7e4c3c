package lead

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/session"
)

const (
	// maxBody bounds what a client may send.
	maxBody = 1 << 20
	// statusClientClosed is nginx's: nobody reads the answer, and it is no error of ours.
	statusClientClosed = 499
)

func (s *Service) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/health", s.health)                   // load balancers must know
	mux.HandleFunc("GET /api/v1/me/events", s.loggedIn(s.events)) // stays open
	for pattern, handler := range map[string]http.HandlerFunc{
		"POST /login":                    s.login,
		"POST /logout":                   s.logout,
		"POST /logout-everywhere":        s.loggedIn(s.logoutEverywhere),
		"GET /api/v1/me":                 s.me,
		"GET /api/v1/me/devices":         s.loggedIn(s.devices),
		"DELETE /api/v1/me/devices/{id}": s.loggedIn(s.logoutDevice),
		"GET /api/v1/leads":              s.listLeads,
		"GET /api/v1/leads/{id}":         s.getLead,
		"POST /api/v1/leads":             s.loggedIn(s.createLead),
		"PUT /api/v1/leads/{id}":         s.loggedIn(s.updateLead),
	} {
		mux.HandleFunc(pattern, s.admit.Handler(handler))
	}
	return mux
}

func (s *Service) health(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok", "instance": s.name})
}

func (s *Service) login(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User string `json:"user"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.User == "" {
		problem(w, http.StatusBadRequest, "user is missing")
		return
	}
	if err := s.sessions.Login(r.Context(), in.User); err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, map[string]string{"user": in.User})
}

func (s *Service) logout(w http.ResponseWriter, r *http.Request) {
	if err := s.sessions.Logout(r.Context()); err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) me(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, map[string]string{"user": s.sessions.Principal(r.Context()), "instance": s.name})
}

func (s *Service) loggedIn(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.sessions.Principal(r.Context()) == "" {
			problem(w, http.StatusUnauthorized, "log in with POST /login first")
			return
		}
		next(w, r)
	}
}

// getLead reads through the cache from a replica that has seen this caller's writes.
func (s *Service) getLead(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if uuid.Validate(id) != nil {
		problem(w, http.StatusBadRequest, "a lead's id is a UUID")
		return
	}
	lead, err := s.leads.Load(r.Context(), id, func(ctx context.Context, id string) (Lead, error) {
		return getLead(ctx, s.db.Read(), id)
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, lead)
}

func (s *Service) listLeads(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.Atoi(or(r.URL.Query().Get("limit"), "20"))
	if err != nil || limit < 1 || limit > 100 {
		problem(w, http.StatusBadRequest, "limit is a number from 1 to 100")
		return
	}
	leads, err := listLeads(r.Context(), s.db.Read(), limit)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusOK, map[string]any{"leads": leads})
}

// createLead writes the row, its event and its jobs in one transaction: all of them, or none.
func (s *Service) createLead(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name    string `json:"name"`
		Email   string `json:"email"`
		Product string `json:"product"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Name == "" || in.Email == "" || in.Product == "" {
		problem(w, http.StatusBadRequest, "name, email and product are needed")
		return
	}
	ctx := r.Context()
	var lead Lead
	err := s.db.InTx(ctx, func(tx pgx.Tx) (err error) {
		lead, err = createLead(ctx, tx, Lead{ID: uuid.NewString(), Name: in.Name, Email: in.Email, Product: in.Product})
		if err == nil {
			err = recordEvent(ctx, tx, lead.ID, "created")
		}
		if err == nil {
			err = s.Jobs.EnqueueTx(ctx, tx, ScoreLead{ID: lead.ID})
		}
		if err == nil {
			err = s.Jobs.EnqueueTx(ctx, tx, NotifyAgent{LeadID: lead.ID})
		}
		return err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply(w, http.StatusCreated, lead)
}

func (s *Service) updateLead(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var in struct {
		Product string `json:"product"`
	}
	if !decode(w, r, &in) {
		return
	}
	if uuid.Validate(id) != nil || in.Product == "" {
		problem(w, http.StatusBadRequest, "a lead's id is a UUID, and product is needed")
		return
	}
	ctx := r.Context()
	var lead Lead
	err := s.db.InTx(ctx, func(tx pgx.Tx) (err error) {
		lead, err = updateProduct(ctx, tx, id, in.Product)
		if err == nil {
			err = recordEvent(ctx, tx, id, "updated")
		}
		if err == nil {
			err = s.Jobs.EnqueueTx(ctx, tx, SyncCRM{LeadID: id, Revision: lead.Revision})
		}
		if err == nil {
			err = s.Jobs.EnqueueTx(ctx, tx, SendDigest{User: s.sessions.Principal(ctx)})
		}
		return err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.forget(ctx, id)
	reply(w, http.StatusOK, lead)
}

// forget drops a changed lead from the cache. When Redis does not answer, other callers may see the old one until it
// expires; whoever changed it does not, because the cache honours the caller's position.
func (s *Service) forget(ctx context.Context, id string) {
	if err := s.leads.Delete(ctx, id); err != nil {
		s.log.Warn("a changed lead stays in the cache until it expires", "error", err)
	}
}

// fail maps what the packages report to HTTP, once for all handlers.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(r.Context().Err(), context.Canceled):
		problem(w, statusClientClosed, "the client has left")
	case errors.Is(err, readonly.ErrReadOnly):
		s.mode.Refuse(w, err)
	case errors.Is(err, errNoLead):
		problem(w, http.StatusNotFound, "no such lead")
	case errors.Is(err, session.ErrNoDevice):
		problem(w, http.StatusNotFound, "no such device")
	case errors.Is(err, session.ErrUnavailable):
		problem(w, http.StatusServiceUnavailable, "sessions are not available, try again")
	case errors.Is(err, dbsplit.ErrSaturated), errors.Is(err, cache.ErrShed):
		busy(w)
	case errors.Is(err, dbsplit.ErrOutcomeUnknown):
		s.log.Error("outcome unknown", "path", r.URL.Path, "error", err)
		problem(w, http.StatusInternalServerError, "whether this was stored is unknown: read it back before trying again")
	default:
		s.log.Error("request failed", "path", r.URL.Path, "error", err)
		problem(w, http.StatusServiceUnavailable, "try again shortly")
	}
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		problem(w, http.StatusRequestEntityTooLarge, "the body is larger than "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
		return false
	}
	if err != nil {
		problem(w, http.StatusBadRequest, "the body must be a JSON object with known fields only: "+err.Error())
		return false
	}
	return true
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	encode(w, map[string]any{"status": status, "title": http.StatusText(status), "detail": detail})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encode(w, body)
}

// encode has nobody to tell when the client is gone.
func encode(w http.ResponseWriter, body any) { _ = json.NewEncoder(w).Encode(body) }
