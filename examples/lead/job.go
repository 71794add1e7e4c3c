package lead

import (
	"context"
	"errors"
	"hash/crc32"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/queue"
)

// The queues and the limits of the runbook.
const (
	QueueLeads    = "lead-processing"
	queueCritical = "critical"
	queueNormal   = "normal"
	queueLow      = "low-priority"
)

// ScoreLead computes a lead's score.
type ScoreLead struct {
	ID string `json:"id"`
}

// NotifyAgent tells an agent of a new lead.
type NotifyAgent struct {
	LeadID string `json:"leadId"`
}

// SyncCRM sends a changed lead to the customer relations system.
type SyncCRM struct {
	LeadID   string `json:"leadId"`
	Revision int    `json:"revision"`
}

// SendDigest mails a summary that nobody waits for.
type SendDigest struct {
	User string `json:"user"`
}

// Kind and Queue tell package queue what a job is called and where it goes.

func (ScoreLead) Kind() string    { return "lead:score" }
func (ScoreLead) Queue() string   { return QueueLeads }
func (NotifyAgent) Kind() string  { return "agent:notify" }
func (NotifyAgent) Queue() string { return queueCritical }
func (SyncCRM) Kind() string      { return "crm:sync" }
func (SyncCRM) Queue() string     { return queueNormal }
func (SendDigest) Kind() string   { return "digest:send" }
func (SendDigest) Queue() string  { return queueLow }

// NewWorker returns a worker that handles every kind of job.
func (s *Service) NewWorker(o *queue.WorkerOptions) (*queue.Worker, error) {
	worker, err := s.Jobs.NewWorker(o)
	if err != nil {
		return nil, err
	}
	queue.Handle(worker, s.score)
	queue.Handle(worker, s.notify)
	queue.Handle(worker, s.sync)
	queue.Handle(worker, s.digest)
	s.mode.CountJobs(worker.Writing)
	return worker, nil
}

// Waiting counts the jobs that wait in all queues which answer.
func (s *Service) Waiting(ctx context.Context) int {
	waiting := 0
	for _, q := range queues {
		if status, err := s.Jobs.Status(ctx, q.Name); err == nil {
			waiting += status.Waiting
		}
	}
	return waiting
}

// score handles ScoreLead. Jobs run at least once, so it may run twice for a lead and must do no harm then.
func (s *Service) score(ctx context.Context, job ScoreLead) error {
	// On a replica, which has the row: the job brought the position of the transaction that wrote it.
	lead, err := getLead(ctx, s.db.Read(), job.ID)
	if err != nil {
		return err
	}
	points := int(crc32.ChecksumIEEE([]byte(lead.Email+lead.Product))%100) + 1
	err = s.db.InTx(ctx, func(tx pgx.Tx) error {
		return errors.Join(setScore(ctx, tx, job.ID, points), recordEvent(ctx, tx, job.ID, "scored"))
	})
	if err == nil {
		s.forget(ctx, job.ID)
	}
	return err
}

func (s *Service) notify(ctx context.Context, job NotifyAgent) error {
	if _, err := getLead(ctx, s.db.Read(), job.LeadID); err != nil {
		return err
	}
	return s.db.InTx(ctx, func(tx pgx.Tx) error { return recordEvent(ctx, tx, job.LeadID, "notified") })
}

// sync refuses to send a revision older than the one that the job is about.
func (s *Service) sync(ctx context.Context, job SyncCRM) error {
	lead, err := getLead(ctx, s.db.Read(), job.LeadID)
	if err == nil && lead.Revision < job.Revision {
		err = errors.New("read an older revision than the one that was written")
	}
	return err
}

func (s *Service) digest(_ context.Context, job SendDigest) error {
	s.log.Log(context.Background(), slog.LevelDebug, "digest sent", "user", job.User)
	return nil
}
