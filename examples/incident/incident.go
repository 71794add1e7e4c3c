package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/redisclient"
)

// incident is what the operator does, step by step.
type incident struct {
	*story
	platform *platform
	desk     desk
	people   *people
	newest   string // the URL of the primary that counts
	loads    context.CancelFunc
}

// backlog is how many jobs wait at least while the spike lasts.
const backlog = 4000

func (i *incident) calm(ctx context.Context) error {
	i.newest = i.platform.state.Primary
	err := until(ctx, "people have created 50 leads", func(context.Context) (bool, error) {
		acknowledged, _, _, _ := i.people.so()
		return acknowledged >= 50, nil
	})
	if err != nil {
		return err
	}
	acknowledged, refused, unsure, stale := i.people.so()
	i.say("%d leads acknowledged, %d refused, %d unsure, %d not read back at once", acknowledged, refused, unsure, stale)
	return nil
}

// spike keeps the queue of leads long until the incident is over.
func (i *incident) spike(ctx context.Context) error {
	rdb := redisclient.New(redisclient.Options(i.platform.state.Redis...))
	jobs, err := queue.New(rdb, []queue.Queue{{Name: lead.QueueLeads, Weight: 3}}, nil)
	if err != nil {
		return err
	}
	ids := i.people.ids()
	var batch []queue.Job
	for n := range 500 {
		batch = append(batch, lead.ScoreLead{ID: ids[n%len(ids)]})
	}
	spiking, stop := context.WithCancel(ctx)
	i.loads = stop
	go func() {
		defer rdb.Close()
		for spiking.Err() == nil {
			if waiting, err := i.desk.waiting(spiking, lead.QueueLeads); err == nil && waiting < backlog {
				_, _ = jobs.EnqueueMany(spiking, batch) // what is missing is added by the next round
				continue
			}
			select {
			case <-spiking.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return until(ctx, "a backlog", func(ctx context.Context) (bool, error) {
		waiting, err := i.desk.waiting(ctx, lead.QueueLeads)
		if err == nil && waiting >= backlog/2 {
			i.say("%d jobs wait in %s", waiting, lead.QueueLeads)
			return true, nil
		}
		return false, err
	})
}

func (i *incident) diagnose(ctx context.Context) error {
	told := map[string]bool{}
	err := until(ctx, "an alert for the queue", func(ctx context.Context) (bool, error) {
		board, err := i.desk.dashboard(ctx)
		if err != nil {
			return false, err
		}
		for _, a := range board.Alerts {
			name := a.Labels["alertname"] + " " + a.Labels["severity"]
			if a.State == "firing" && !told[name] {
				told[name] = true
				why := ""
				if a.Why != nil {
					why = ": " + a.Why.Text
				}
				i.say("alert  %s, %.4g past %.4g%s", name, a.Value, a.Threshold, why)
			}
		}
		return told["QueueDepthHigh critical"], nil
	})
	if err != nil {
		return err
	}
	return until(ctx, "a resource that is used up", func(ctx context.Context) (bool, error) {
		found, err := i.desk.bottlenecks(ctx)
		if err != nil || len(found.Resources) == 0 {
			return false, err
		}
		first := found.Resources[0]
		if first.Utilization == nil || *first.Utilization < 0.5 {
			return false, nil
		}
		i.say("bottleneck  %s, %.0f %% used: %s", first.Title, 100**first.Utilization, strings.Join(first.Evidence, "; "))
		i.say("runbook     %s", first.Step)
		return true, nil
	})
}

func (i *incident) scale(ctx context.Context) error {
	most := 0
	return until(ctx, "five workers", func(context.Context) (bool, error) {
		if err := i.platform.read(); err != nil {
			return false, nil // it is being written
		}
		if n := i.platform.state.Workers(); n != most {
			most = n
			i.say("%d workers", n)
		}
		return most >= 5, nil
	})
}

func (i *incident) begin(ctx context.Context) error {
	report, err := i.desk.begin(ctx, "a campaign, and a primary that fails")
	if err != nil {
		return err
	}
	i.say("read-only mode is %s on %d instances", report.ReadOnly.Phase, report.ReadOnly.Instances)
	for _, step := range report.Steps {
		i.say("%s: %s", step.Name, cmp.Or(step.Error, "done"))
	}
	_, before, _, _ := i.people.so()
	return until(ctx, "people are refused", func(context.Context) (bool, error) {
		_, refused, _, _ := i.people.so()
		if refused > before {
			i.say("people who write are told to come back; people who read notice nothing")
		}
		return refused > before, nil
	})
}

func (i *incident) prove(ctx context.Context) error {
	phase := ""
	return until(ctx, "held", func(ctx context.Context) (bool, error) {
		report, err := i.desk.readOnly(ctx)
		if err != nil {
			return false, err
		}
		if report.Phase != phase {
			phase = report.Phase
			i.say("%s: %d of %d instances obey, %d requests and %d jobs in flight", phase, report.Acknowledged, report.Instances, report.InFlight, report.Jobs)
		}
		return report.Phase == readonly.PhaseHeld && report.Held, nil
	})
}

func (i *incident) promote(ctx context.Context) error {
	s := i.platform.state
	err := until(ctx, "the first replica has everything", func(ctx context.Context) (bool, error) { return caughtUp(ctx, s.Primary, s.Replicas[0]) })
	if err != nil {
		return err
	}
	i.say("the first replica has replayed all that the primary has written")
	if err := kill(ctx, s.Primary); err != nil {
		return err
	}
	i.say("the primary is dead (kill -9)")
	if promoted, err := ask[bool](ctx, s.Replicas[0], `SELECT pg_promote()`); err != nil || !promoted {
		return errors.Join(err, errors.New("the first replica was not promoted"))
	}
	if err := follow(ctx, s.Replicas[1], s.Replicas[0]); err != nil {
		return err
	}
	i.newest = s.Replicas[0]
	i.say("the first replica is promoted, the second follows it; nobody restarted, nobody changed a configuration")
	return until(ctx, "the second replica streams", func(ctx context.Context) (bool, error) {
		return ask[bool](ctx, i.newest, `SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'`)
	})
}

func (i *incident) end(ctx context.Context) error {
	i.loads() // the campaign has been called off meanwhile
	before, _, _, _ := i.people.so()
	var report readonly.IncidentReport
	err := until(ctx, "the end of the incident", func(ctx context.Context) (done bool, err error) {
		report, err = i.desk.end(ctx)
		for _, step := range report.Steps {
			i.say("%s: %s", step.Name, cmp.Or(step.Error, "undone"))
		}
		return err == nil && report.Complete, err
	})
	if err != nil {
		return err
	}
	return until(ctx, "people write again", func(context.Context) (bool, error) {
		now, _, _, _ := i.people.so()
		if now > before {
			i.say("people write again, on the new primary")
		}
		return now > before, nil
	})
}

func (i *incident) recover(ctx context.Context) error {
	waiting := -1
	err := until(ctx, "the queue is worked off", func(ctx context.Context) (bool, error) {
		n, err := i.desk.waiting(ctx, lead.QueueLeads)
		if err == nil && (waiting < 0 || n < waiting/2 || n == 0) {
			waiting = n
			i.say("%d jobs wait", n)
		}
		return err == nil && n < 50, err
	})
	if err != nil {
		return err
	}
	firing := ""
	err = until(ctx, "no alert of the spike fires", func(ctx context.Context) (bool, error) {
		board, err := i.desk.dashboard(ctx)
		if err != nil {
			return false, err
		}
		var names []string
		for _, a := range board.Alerts {
			if a.State == "firing" && a.Labels["alertname"] == "QueueDepthHigh" {
				names = append(names, a.Labels["severity"])
			}
		}
		if now := strings.Join(slices.Compact(names), ", "); now != firing {
			firing = now
		}
		return len(names) == 0, nil
	})
	if err != nil {
		return err
	}
	i.say("QueueDepthHigh is resolved")
	return until(ctx, "two workers", func(context.Context) (bool, error) {
		if err := i.platform.read(); err != nil {
			return false, nil // it is being written
		}
		if i.platform.state.Workers() == 2 {
			i.say("2 workers")
			return true, nil
		}
		return false, nil
	})
}

func (i *incident) count(ctx context.Context) error {
	i.people.leave()
	ids := i.people.ids()
	_, refused, unsure, stale := i.people.so()
	there, err := ask[int](ctx, i.newest, `SELECT count(*) FROM "Lead" WHERE id = ANY($1::uuid[])`, ids)
	if err != nil {
		return err
	}
	i.say("%d leads were acknowledged, %d are there", len(ids), there)
	i.say("%d writes were refused, %d had an outcome that nobody could know, %d reads missed the reader's own write", refused, unsure, stale)
	if there != len(ids) || stale > 0 {
		return fmt.Errorf("a promise is broken: %d of %d leads, %d stale reads", there, len(ids), stale)
	}
	return until(ctx, "each lead is scored", func(ctx context.Context) (bool, error) {
		scored, err := ask[int](ctx, i.newest, `SELECT count(*) FROM "Lead" WHERE id = ANY($1::uuid[]) AND score IS NOT NULL`, ids)
		if err == nil && scored == len(ids) {
			i.say("%d leads are scored: no job was lost", scored)
		}
		return scored == len(ids), err
	})
}
