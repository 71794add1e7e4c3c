package readonly

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	// missedPolls is how many polls may fail before an instance counts as silent, and the store as lost.
	missedPolls = 12
	// forgotten is how long an instance that fell silent is still asked for.
	forgotten    = time.Minute
	mostIsolated = 50 * time.Second
	// remembered is how long the store keeps its word. It is longer, because the store's clock may be set: see doubtful.
	remembered = 24 * time.Hour
	// doubtedPolls is how many polls are waited for before a word that is old by the store's clock counts as one of the dead.
	doubtedPolls = 3
	// drainTick is how often a draining instance looks.
	drainTick = 10 * time.Millisecond
)

// doubtful reports whether words that are old by the store's clock may be those of instances that live: it may just have been set,
// or be another server's. Who lives gives his word with each poll.
func (s *Switch) doubtful() bool {
	return time.Since(s.made)-time.Duration(s.adopted.Load()) < doubtedPolls*s.options.Poll
}

func (s *Switch) silence() time.Duration { return missedPolls * s.options.Poll }

type reach struct {
	at  time.Time
	err error
}

// Run keeps this instance in step with the store until ctx ends: a push at once, a poll whatever happens. Then it waits for the
// writes that are under way, for no longer than a silent instance is believed, refuses all that come, and says goodbye. So ctx
// has to outlive whatever writes: the HTTP server and the workers are shut down before it ends.
func (s *Switch) Run(ctx context.Context) error {
	s.join()
	wake := make(chan struct{}, 1)
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	group.Go(func() error { return s.watch(working, wake) })
	group.Go(func() error { return s.poll(working, wake) })
	<-ctx.Done()
	for end := time.Now().Add(s.silence()); s.busy() && time.Now().Before(end); {
		time.Sleep(drainTick)
	}
	stop()
	err := group.Wait()
	s.leave(working)
	return err
}

// join makes an instance that has left one that is new.
func (s *Switch) join() {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if s.left.Swap(false) {
		s.known.Store(nil)
	}
}

// busy reports whether anything of this instance may be writing.
func (s *Switch) busy() bool {
	jobs, connections := s.counts.read()
	return s.writes.sum()+s.allowed.sum()+jobs+connections > 0
}

// idle waits for a change, but not longer than a poll or than most.
func (s *Switch) idle(ctx context.Context, changed <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(min(s.options.Poll, most))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
	}
}

// leave says goodbye, so that nobody waits for this instance, which hears of no change any more and so writes nothing. When
// something still does, it falls silent instead, and is missed.
func (s *Switch) leave(ctx context.Context) {
	s.adopting.Lock()
	s.left.Store(true)
	s.closed.Store(s.unknown)
	s.adopting.Unlock()
	for end := time.Now().Add(time.Second); s.busy() && time.Now().Before(end); { // nothing begins any more
		time.Sleep(drainTick)
	}
	if s.busy() {
		s.options.Logger.Warn("Run of read-only mode has ended before the writes of this instance: others miss it for a while", "instance", s.options.Instance)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.store.Acknowledge(ctx, s.options.Instance, Ack{}, 0); err != nil {
		s.failed("leave", err)
	}
}

// Ready reports whether the store answered lately. It is nil in read-only mode.
func (s *Switch) Ready(context.Context) error {
	last := s.reached.Load()
	switch {
	case last == nil:
		return errors.New("readonly: the store was not reached yet, is Run running?")
	case last.err != nil:
		return fmt.Errorf("readonly: the store does not answer, the last known state holds: %w", last.err)
	case time.Since(last.at) > s.silence():
		return errors.New("readonly: the store was not read for a while, is Run running?")
	}
	return nil
}

func (s *Switch) watch(ctx context.Context, wake chan<- struct{}) error {
	var told atomic.Bool // of the failure that lasts
	for ctx.Err() == nil {
		err := s.store.Watch(ctx, func() {
			told.Store(false)
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		switch {
		case err == nil || ctx.Err() != nil:
		case told.Swap(true):
			s.failures.WithLabelValues("readonly", "watch").Inc()
		default:
			s.failed("watch", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.options.Poll):
		}
	}
	return nil
}

func (s *Switch) poll(ctx context.Context, wake <-chan struct{}) error {
	tick := time.NewTicker(s.options.Poll)
	defer tick.Stop()
	for {
		s.refresh(ctx)
		s.drain(ctx, wake)
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
	}
}

// drain acknowledges often while what began before a change is ending, so that nobody waits a poll for it.
func (s *Switch) drain(ctx context.Context, wake <-chan struct{}) {
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	for range s.options.Poll / drainTick {
		ack, _ := s.ack()
		if said := s.said.Load(); said == nil || *said != ack {
			if s.acknowledge(ctx) != nil {
				return
			}
		}
		if !ack.busy() || len(wake) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// refresh reads the store, obeys it, writes back what the store has lost, and acknowledges.
func (s *Switch) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.silence()/2)
	defer cancel()
	began := time.Since(s.made)
	mine, _ := s.State() // before what is stored: a change between the two is no loss
	var stored State
	err := s.introduce(ctx)
	if err == nil {
		stored, err = s.store.Load(ctx)
	}
	if err == nil {
		s.adopt(stored)
		if mine.Epoch > stored.Epoch {
			s.options.Logger.Warn("the store has lost the read-only state, writing it back", "epoch", mine.Epoch, "stored", stored.Epoch)
			_, err = s.store.Save(ctx, mine)
		}
	}
	if err == nil {
		err = s.acknowledge(ctx)
	}
	if context.Cause(ctx) == context.Canceled {
		return
	}
	if now, known := s.State(); err != nil && known {
		s.adopt(now) // whose time may be over
	}
	if err == nil {
		s.heard.Store(int64(began))
	}
	if was := s.reached.Swap(&reach{time.Now(), err}); err != nil && (was == nil || was.err == nil) {
		s.options.Logger.Error("read-only state cannot be read, keeping the last known", "error", err)
	}
	if err != nil {
		s.failures.WithLabelValues("readonly", "poll").Inc()
	}
}

// introduce makes an instance that is new known to the others before it reads what it may do: they do not wait for one
// that they have not heard of. Who changes the mode and does not see it there has stored the change already, so it is read.
func (s *Switch) introduce(ctx context.Context) error {
	if s.known.Load() != nil {
		return nil
	}
	return s.store.Acknowledge(ctx, s.options.Instance, Ack{InFlight: s.writes.sum()}, remembered)
}

// acknowledge tells the others what this instance obeys and what it still does.
func (s *Switch) acknowledge(ctx context.Context) error {
	ack, known := s.ack()
	if !known || s.left.Load() {
		return nil
	}
	err := s.store.Acknowledge(ctx, s.options.Instance, ack, remembered)
	if err == nil {
		s.said.Store(&ack)
	}
	return err
}

// ack counts after it has read the state: what is not counted then has asked after the state refused it.
func (s *Switch) ack() (Ack, bool) {
	state, known := s.State()
	ack := Ack{Epoch: state.Epoch, ID: state.ID}
	switch {
	case state.refuses(time.Now()):
		ack.InFlight = s.writes.sum()
		if state.total() {
			ack.InFlight += s.allowed.sum()
			ack.Jobs, ack.Connections = s.counts.read()
		}
	case state.Enabled:
		ack.ID = "" // it is over here
	}
	if mark := s.marked.Load(); mark != nil && mark.change == state.ID {
		ack.Server, ack.Mark = mark.server, mark.mark
	}
	return ack, known
}

// remark tells of a change that this instance has come to obey.
func (s *Switch) remark(was, now State) {
	s.options.Logger.Warn("read-only mode changed", "enabled", now.Enabled, "tier", now.Tier, "tenants", now.Tenants, "reason", now.Reason,
		"source", now.Source, "actor", now.Actor, "epoch", now.Epoch, "until", now.Until)
	if s.options.Audit == nil || now.Source != Automatic {
		return
	}
	record := admin.Record{Time: now.Since, Actor: now.Actor, Role: admin.Operator.String(), Operation: "readonly.trip", Status: http.StatusOK, Detail: now.Reason}
	switch {
	case was.Incident && !now.Incident:
		record.Operation = "incident.expire"
	case !now.Enabled:
		record.Operation = "readonly.untrip"
	}
	s.options.Audit(record)
}

func (s *Switch) failed(task string, err error) {
	s.failures.WithLabelValues("readonly", task).Inc()
	s.options.Logger.Warn("background work failed, trying again", "package", "readonly", "task", task, "error", err)
}
