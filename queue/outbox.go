package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware"
)

// OutboxSchema creates the outbox table. It may be run again. Put it into a migration, or call EnsureOutbox.
const OutboxSchema = `
CREATE TABLE IF NOT EXISTS scaleaware_outbox (
	id         uuid PRIMARY KEY,
	queue      text NOT NULL,
	kind       text NOT NULL,
	payload    bytea NOT NULL,
	settings   jsonb NOT NULL,
	created_at timestamptz NOT NULL DEFAULT now(),
	due_at     timestamptz NOT NULL DEFAULT now(),
	failures   int NOT NULL DEFAULT 0,
	last_error text
)`

// Execer is the part of pgx.Tx that EnqueueTx needs.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// EnqueueTx stores job in the outbox table within the caller's transaction: it is enqueued if and only if that commits, by the
// Run of any process that has Options.Outbox, with the positions that make its handler see what the transaction wrote. An ID, if
// given, must be a UUID, as it is the row's. Redis is not needed. Where another job, be it a failed one, holds the Unique lock
// when the row comes to Redis, the row is done and adds no job, as Enqueue's ErrExists. A row stays until a replica of the Redis
// that took the job has it, too, where there is one: the death of a master loses no job. Without a cluster, a master whose
// replicas are gone counts as one without after two minutes, or half of OutboxRetention if that is less; where it can be cut off
// for longer and go on, set min-replicas-to-write in Redis.
func (j *Jobs) EnqueueTx(ctx context.Context, tx Execer, job Job, opts ...Option) error {
	e, q, err := j.prepare(ctx, job, opts)
	if err != nil {
		return err
	}
	if id, err := uuid.Parse(e.ID); err != nil || id.String() != e.ID {
		return fmt.Errorf("queue: EnqueueTx of job %q with ID %q: want a UUID in lower case with dashes, or no ID option", e.Kind, clip(e.ID))
	}
	// Known positions only: asking for new ones would take a second connection while the caller's transaction holds
	// one, and the relay takes a later position anyway.
	ended, end := context.WithCancel(ctx)
	end()
	tokens, _ := scaleaware.WatermarkFrom(ctx).Written(ended)
	e.raise(tokens)
	settings, err := json.Marshal(e.settings)
	if err != nil {
		return fmt.Errorf("queue: encode the settings of job %q: %w", e.Kind, err)
	}
	tag, err := tx.Exec(ctx, `INSERT INTO scaleaware_outbox (id, queue, kind, payload, settings) VALUES ($1::uuid, $2, $3, $4, $5::jsonb)
		ON CONFLICT (id) DO NOTHING`, e.ID, q.Name, e.Kind, e.Payload, string(settings))
	if err != nil {
		return fmt.Errorf("queue: put job %q into the outbox, whose table OutboxSchema or EnsureOutbox creates: %w", e.Kind, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: %s in the outbox", ErrExists, e.ID)
	}
	return nil
}

// EnsureOutbox creates the outbox table in Options.Outbox if it is missing. Several processes may call it at once.
func (j *Jobs) EnsureOutbox(ctx context.Context) error {
	if j.opts.Outbox == nil {
		return errors.New("queue: EnsureOutbox needs Options.Outbox")
	}
	tx, err := j.opts.Outbox.Begin(ctx)
	if err != nil {
		return fmt.Errorf("queue: create the outbox table: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	// CREATE TABLE IF NOT EXISTS alone fails when two sessions run it at the same moment.
	_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('scaleaware_outbox'))`)
	if err == nil {
		_, err = tx.Exec(ctx, OutboxSchema)
	}
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("queue: create the outbox table: %w", err)
	}
	return nil
}
