package lead

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pairstore"
	"github.com/scaleaware/scaleaware/readonly/pgstore"
	"github.com/scaleaware/scaleaware/readonly/pgwitness"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
)

// fenceLock is the advisory lock that writing transactions hold and the fence waits for. Programs beside the platform may
// hold it too.
const fenceLock = 7_411_000_002

// gate lets the database be opened before the switch, whose state it keeps.
type gate struct{ *Service }

func (g gate) AllowWrite(ctx context.Context) error { return g.mode.AllowWrite(ctx) }

// openMode makes the switch: its state in Redis and in PostgreSQL, its proof from PostgreSQL, and the Keeper that trips it
// when nothing can be written anyway.
func (s *Service) openMode(registerer prometheus.Registerer) error {
	flag, err := redisstore.New(s.rdb, nil)
	if err != nil {
		return err
	}
	row, err1 := pgstore.New(s.db, nil)
	both, err2 := pairstore.New(flag, row, &pairstore.Options{Logger: s.log})
	witness, err3 := pgwitness.New(s.db, &pgwitness.Options{Lock: fenceLock})
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	s.mode, err = readonly.New(both, &readonly.Options{
		Instance: s.name, Exempt: []string{"POST /login", "POST /logout", "POST /logout-everywhere", "DELETE /api/v1/me/devices/{id}"}, Staff: s.staff, Witness: witness,
		Audit: s.record, Logger: s.log, Registerer: registerer,
	})
	if err != nil {
		return err
	}
	s.mode.CountConnections(s.db.Writing)
	s.keeper, err = readonly.NewKeeper(s.mode, []readonly.Trip{
		{Name: "the database takes no writes", Check: s.db.Writable, After: 20 * time.Second}, // a failover is over by then
	}, nil)
	return err
}

// ReadOnly reports whether writes are refused.
func (s *Service) ReadOnly(ctx context.Context) bool { return s.mode.AllowWrite(ctx) != nil }

// staff are the users whose names say so. A real service asks its own records.
func (s *Service) staff(ctx context.Context) bool {
	return strings.HasPrefix(s.sessions.Principal(ctx), "staff-")
}

// record adds what happens by itself to this process's audit.
func (s *Service) record(r admin.Record) {
	if handler := s.audit.Load(); handler != nil {
		handler.Record(r)
	}
}

// extendTTLs and pauseLow are the runbook's other immediate actions, next to read-only mode.
func (s *Service) extendTTLs() readonly.Step {
	return readonly.Step{
		Name: "extend cache TTLs",
		Do:   func(ctx context.Context) (any, error) { return s.store.ExtendTTLs(ctx, cache.Extension{Factor: 2}) },
		Undo: func(ctx context.Context, _ json.RawMessage) (any, error) { return s.store.RestoreTTLs(ctx) },
	}
}

// pauseLow leaves a queue alone that somebody else has paused for good: the hold has an owner. One that ends by itself could end in
// the middle of the incident, so then the step has failed, with whose it is and for how long, and beginning again repeats it.
func (s *Service) pauseLow() readonly.Step {
	return readonly.Step{
		Name: "pause " + queueLow,
		Do: func(ctx context.Context) (any, error) {
			changed, err := s.Jobs.Pause(ctx, queueLow, &queue.Hold{Owner: "incident", Reason: "high load"})
			if held, ok := errors.AsType[*queue.HeldError](err); ok && held.By.LeftSeconds == nil {
				err = nil
			}
			return map[string]bool{"changed": changed}, err
		},
		Undo: func(ctx context.Context, _ json.RawMessage) (any, error) {
			changed, err := s.Jobs.Unpause(ctx, queueLow, "incident")
			return map[string]bool{"changed": changed}, err
		},
	}
}
