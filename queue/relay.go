package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
)

const (
	relayBatch = 100
	// longestPause is the longest time for which a row is postponed.
	longestPause = 10 * time.Minute
)

// runRelay moves committed outbox rows into their queues. Any number of processes may do so at once.
func (j *Jobs) runRelay(ctx context.Context) {
	pause, away := j.opts.OutboxInterval, awayQueues{}
	for sleep(ctx, pause) {
		pause = j.opts.OutboxInterval
		if j.opts.Gate != nil && j.opts.Gate.AllowWrite(ctx) != nil {
			continue // rows cannot be deleted now; they keep
		}
		for {
			n, err := j.relay(ctx, away)
			if err != nil {
				if ctx.Err() == nil {
					j.background("outbox", err)
					pause = max(pause, time.Second)
				}
				break
			}
			if n < relayBatch {
				break
			}
		}
	}
}

// awayQueues are those whose Redis did not answer lately, with the time of the next try. Their rows would fill every
// batch, while other queues may live on another server.
type awayQueues map[string]time.Time

const awayFor = 2 * time.Second

func (a awayQueues) note(rows []*outboxRow) {
	for _, row := range rows {
		a[row.Queue] = time.Now().Add(awayFor)
	}
}

func (a awayQueues) has(queue string) bool { return time.Now().Before(a[queue]) }

func (a awayQueues) names() []string {
	names := []string{}
	for queue := range a {
		if a.has(queue) {
			names = append(names, queue)
		}
	}
	return names
}

type outboxRow struct {
	envelope
	raw     string
	created string // in s, which tells it from other rows of its ID
	problem error
}

// relay handles one batch: lock rows that nobody else has, enqueue them under their own IDs, wait for a replica, delete
// them. Killed before the last, the rows come again and conflict with their own jobs, which changes nothing. A row that another
// job's unique lock refuses is done, too, and Redis remembers that: the lock may be free when the row comes again. Rows are found
// by existence, never by "greater than the last": transactions do not commit in the order of their IDs.
func (j *Jobs) relay(ctx context.Context, away awayQueues) (int, error) {
	tx, err := j.opts.Outbox.Begin(ctx)
	if err != nil {
		return 0, fmt.Errorf("queue: relay the outbox: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	rows, err := lockRows(ctx, tx, away.names())
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	// Taken after the rows are visible, one position covers every transaction that wrote them.
	tokens, err := j.position(ctx, tx)
	if err != nil {
		return 0, err
	}
	sealed, infos := make([]*envelope, len(rows)), make([]Info, len(rows))
	for i := range rows {
		if row := &rows[i]; row.problem == nil && !away.has(row.Queue) {
			row.raise(tokens)
			row.Retention = max(row.Retention, j.opts.OutboxRetention)
			row.refusal = refusedKey(row)
			sealed[i] = &row.envelope
		}
	}
	j.store(ctx, sealed, infos, 2)
	var stored []*outboxRow
	var failure error
	for i := range rows {
		row := &rows[i]
		if sealed[i] != nil {
			row.problem = infos[i].Err
			if !errors.Is(row.problem, ErrClosed) { // such a row was given to no queue yet
				j.meters.enqueued.WithLabelValues(row.Queue, outcome(row.problem)).Inc()
			}
		} else if row.problem == nil {
			continue // its Redis is away
		}
		switch {
		case row.problem == nil, errors.Is(row.problem, ErrExists):
			stored = append(stored, row)
		case errors.Is(row.problem, ErrClosed): // no failure: it keeps until the queue is open
			away.note([]*outboxRow{row})
		case errors.Is(row.problem, ErrUnconfirmed):
			failure = errors.Join(failure, row.problem)
			away.note([]*outboxRow{row})
		default:
			if err := postpone(ctx, tx, row); err != nil {
				return 0, err
			}
			j.background("outbox", row.problem, "id", row.ID)
		}
	}
	stored, alone, err := j.replicated(ctx, stored)
	failure = errors.Join(failure, err)
	away.note(alone)
	if _, err := tx.Exec(ctx, `DELETE FROM scaleaware_outbox WHERE id = ANY($1::text[]::uuid[])`, ids(stored)); err != nil {
		return 0, fmt.Errorf("queue: delete relayed outbox rows: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return 0, fmt.Errorf("queue: delete relayed outbox rows: %w", err)
	}
	return len(rows), failure
}

// lockRows takes what is due by the database's clock. That may be set back: a row that was never postponed is due whatever it says,
// and none waits for longer than it can have been told to.
func lockRows(ctx context.Context, tx pgx.Tx, without []string) ([]outboxRow, error) {
	rows, err := tx.Query(ctx, `SELECT id::text, queue, kind, payload, settings::text, extract(epoch FROM created_at)::text
		FROM scaleaware_outbox
		WHERE (failures = 0 OR due_at <= now() OR due_at > now() + $3::int * interval '1 second') AND queue <> ALL($2)
		ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED`, relayBatch, without, int(longestPause/time.Second))
	if err != nil {
		return nil, fmt.Errorf("queue: read the outbox, whose table OutboxSchema or EnsureOutbox creates: %w", err)
	}
	batch, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (outboxRow, error) {
		var r outboxRow
		var id, queue string
		if err := row.Scan(&id, &queue, &r.Kind, &r.Payload, &r.raw, &r.created); err != nil {
			return r, err
		}
		r.problem = json.Unmarshal([]byte(r.raw), &r.settings)
		r.ID, r.Queue = id, queue
		if r.problem == nil && !validName(queue) {
			r.problem = fmt.Errorf("queue: outbox row %s names queue %q, which no queue can be called", id, clip(queue))
		}
		return r, nil
	})
	if err != nil {
		return nil, fmt.Errorf("queue: read the outbox: %w", err)
	}
	return batch, nil
}

// postpone keeps a row that cannot be enqueued out of the way of the others, ever longer.
func postpone(ctx context.Context, tx pgx.Tx, row *outboxRow) error {
	_, err := tx.Exec(ctx, `UPDATE scaleaware_outbox SET failures = failures + 1, last_error = $2,
		due_at = now() + least(power(2, least(failures, 10)), $3) * interval '1 second' WHERE id = $1::uuid`, row.ID, row.problem.Error(), int(longestPause/time.Second))
	if err != nil {
		return fmt.Errorf("queue: postpone outbox row %s: %w", row.ID, err)
	}
	return nil
}

// position returns where the database stands, from the outbox itself when it can tell.
func (j *Jobs) position(ctx context.Context, tx pgx.Tx) (scaleaware.Tokens, error) {
	if j.source != nil {
		t, err := j.source.Position(ctx)
		if err != nil {
			return nil, fmt.Errorf("queue: position of the outbox's database: %w", err)
		}
		return scaleaware.Tokens{t}, nil
	}
	var system, timeline, lsn string
	var block, segment uint64
	// The WAL file's name begins with the timeline; pg_control_checkpoint shows an old one for a while after a
	// promotion.
	err := tx.QueryRow(ctx, `SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), pg_current_wal_insert_lsn()::text,
			current_setting('wal_block_size')::bigint, pg_size_bytes(current_setting('wal_segment_size'))
		FROM pg_control_system()`).Scan(&system, &timeline, &lsn, &block, &segment)
	if err != nil {
		return nil, fmt.Errorf("queue: position of the outbox's database: %w", err)
	}
	t, err := parsePosition(system, timeline, lsn, block, segment)
	if err != nil {
		return nil, err
	}
	return scaleaware.Tokens{t}, nil
}
