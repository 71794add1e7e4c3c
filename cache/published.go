package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Where a server refuses CLIENT TRACKING, processes tell each other what they change. Each change takes a number first,
// and is published with it afterwards. Who listens asks every so often for the last number: what is missing was lost, or
// its sender has died, and then nothing that was kept before is used. Such a listener leaves a mark, for which the others
// publish: where all servers tell by themselves it costs nothing.

const (
	markLife  = 10 * time.Second
	markEvery = 2 * time.Second
	// markKnown is how long a process may not know that there is a mark.
	markKnown = time.Second
	askEvery  = 100 * time.Millisecond
	// lateAfter is when a number that has not come counts as lost.
	lateAfter = 500 * time.Millisecond
	// publishedAddr is what the cover of published changes is called.
	publishedAddr = "published"
)

func (s *Store) markKey() string     { return s.opts.Prefix + metaMark + "listens" }
func (s *Store) numberKey() string   { return s.opts.Prefix + metaMark + "number" }
func (s *Store) changesName() string { return s.opts.Prefix + metaMark + "changes" }

// publishes reports whether somebody wants changes published.
func (s *Store) publishes(ctx context.Context) bool {
	now := s.now()
	if at := s.markAsked.Load(); at != 0 && now-time.Duration(at) < markKnown {
		return s.marked.Load()
	}
	n, err := s.rdb.Exists(ctx, s.markKey()).Result()
	if err != nil {
		return s.marked.Load()
	}
	s.marked.Store(n > 0)
	s.markAsked.Store(int64(now))
	return n > 0
}

// changing is called before keys are changed, and what it returns afterwards.
func (s *Store) changing(ctx context.Context, keys ...string) (changed func()) {
	if s.rdb == nil || !s.publishes(ctx) {
		return func() {}
	}
	n, err := s.rdb.Incr(ctx, s.numberKey()).Result()
	if err != nil {
		s.in.failed(ctx, "publish", err) // who listens cannot ask for the number either, and so uses nothing
		return func() {}
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.RedisTimeout)
		defer cancel()
		text := strconv.AppendInt(nil, n, 10)
		for _, key := range keys { // which may have any bytes
			text = strconv.AppendQuote(append(text, '\n'), key)
		}
		if err := s.rdb.Publish(ctx, s.changesName(), text).Err(); err != nil {
			s.in.failed(ctx, "publish", err)
		}
	}
}

// runPublished listens for published changes while a server does not tell them by itself.
func (s *Store) runPublished(ctx context.Context) {
	for sleep(ctx, askEvery) == nil {
		if !s.untracked.Load() {
			continue
		}
		err := s.listenPublished(ctx)
		s.coverage.claimed(publishedAddr, claim{})
		if err != nil && ctx.Err() == nil {
			s.in.failed(ctx, "listen", err)
		}
	}
}

// hearing is one unbroken time of listening.
type hearing struct {
	store *Store
	cover *cover
	upTo  int64              // all numbers to here have come
	ahead map[int64]struct{} // and these
	late  time.Duration      // since when something is missing; 0 for nothing
}

func (s *Store) listenPublished(ctx context.Context) error {
	sub := s.rdb.Subscribe(ctx, s.changesName())
	defer sub.Close()
	rctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	_, err := sub.Receive(rctx)
	cancel()
	if err != nil {
		return err
	}
	events := make(chan any)
	failed := make(chan error, 1)
	lctx, stop := context.WithCancel(ctx)
	defer func() { stop(); sub.Close(); <-failed }()
	go func() {
		defer close(failed)
		for {
			event, err := sub.ReceiveTimeout(lctx, time.Hour)
			if err != nil {
				failed <- err
				return
			}
			select {
			case events <- event:
			case <-lctx.Done():
				return
			}
		}
	}()
	if err := s.mark(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, 2*markKnown); err != nil { // until all publish
		return err
	}
	l := &hearing{store: s}
	marked := time.Now()
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for s.untracked.Load() {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case event := <-events:
			switch event := event.(type) {
			case *redis.Message:
				l.heard(event.Payload)
			case *redis.Subscription: // go-redis has connected anew, and what was said meanwhile is lost
				return errors.New("cache: the connection for published changes was lost")
			}
		case <-ticker.C:
			if time.Since(marked) > markEvery {
				if err := s.mark(ctx); err != nil {
					return err
				}
				marked = time.Now()
			}
			if err := l.ask(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) mark(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	return s.rdb.Set(ctx, s.markKey(), "1", markLife).Err()
}

// ask compares what has come with what was given out.
func (l *hearing) ask(ctx context.Context) error {
	s := l.store
	at := s.now()
	rctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	last, err := s.rdb.Get(rctx, s.numberKey()).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("cache: the number of published changes is unknown: %w", err)
	}
	switch {
	case l.cover == nil:
		l.begin(last, at)
	case last == l.upTo:
		l.late = 0
		l.cover.heard.Store(int64(at))
	case last < l.upTo: // the key was lost
		l.begin(last, at)
	case l.late == 0:
		l.late = at
	case at-l.late > lateAfter:
		l.begin(last, at)
	}
	return nil
}

// begin makes a new cover: what was kept before is not used any more.
func (l *hearing) begin(last int64, at time.Duration) {
	s := l.store
	l.cover, l.upTo, l.ahead, l.late = newCover(publishedAddr, at), last, map[int64]struct{}{}, 0
	s.coverage.claimed(publishedAddr, claim{cover: l.cover, slots: "0-" + strconv.Itoa(clusterSlots-1)})
	s.ruling.fence.Add(1)
	s.clock.fence.Add(1)
	s.rulesMoved.ring()
	s.clockMoved.ring()
	s.wakeAll()
}

// heard takes in one published change.
func (l *hearing) heard(text string) {
	number, keys, _ := strings.Cut(text, "\n")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return
	}
	for key := range strings.SplitSeq(keys, "\n") {
		if key, err := strconv.Unquote(key); err == nil {
			l.store.changed(key)
		}
	}
	if l.cover == nil || n <= l.upTo {
		return
	}
	l.ahead[n] = struct{}{}
	for {
		if _, next := l.ahead[l.upTo+1]; !next {
			return
		}
		delete(l.ahead, l.upTo+1)
		l.upTo++
	}
}
