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
// publish: where all servers tell by themselves, a process asks for it once a second while it changes keys, and no more.

const (
	markLife  = 10 * time.Second
	markEvery = 2 * time.Second
	// markKnown is how long a process may not know that there is a mark.
	markKnown = time.Second
	askEvery  = 100 * time.Millisecond
	// publishTries is how often a change is published until a server takes it.
	publishTries = 3
	// lateAfter is when a number that has not come counts as lost.
	lateAfter = 500 * time.Millisecond
	// publishedAddr is what the cover of published changes is called.
	publishedAddr = "published"
)

func (s *Store) markKey() string     { return s.opts.Prefix + metaMark + "listens" }
func (s *Store) numberKey() string   { return s.opts.Prefix + metaMark + "number" }
func (s *Store) changesName() string { return s.opts.Prefix + metaMark + "changes" }

// listening says whether somebody wants changes published.
type listening int

const (
	nobody  listening = iota
	perhaps           // the mark could not be asked for
	somebody
)

// marking is what a process knows of the mark.
type marking struct {
	at  time.Duration // when it was asked for
	who listening
}

// listening asks for the mark, unless it did so lately.
func (s *Store) listening(ctx context.Context) listening {
	next := &marking{at: s.now()}
	was := s.marked.Load()
	if was != nil && next.at-was.at < markKnown {
		return was.who
	}
	var n int64
	err := s.aside(ctx, s.markKey(), func(ctx context.Context) (err error) {
		n, err = s.rdb.Exists(ctx, s.markKey()).Result()
		return err
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return perhaps // the caller has gone, which says nothing of the server
	case err != nil:
		next = &marking{s.now(), perhaps}
	case n > 0:
		next.who = somebody
	}
	for ; was == nil || was.at < next.at; was = s.marked.Load() { // a slower one takes nothing from a faster one
		if s.marked.CompareAndSwap(was, next) {
			break
		}
	}
	return next.who
}

// aside makes a call about a change, before it. The key's master may hang and that of the change not, which is left most of
// the time.
func (s *Store) aside(ctx context.Context, key string, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout/4)
	defer cancel()
	return s.call(ctx, key, do)
}

// changing is called before keys are changed, and what it returns afterwards, with the error of the change. That returns the
// error, or another when others may go on using what they keep.
func (s *Store) changing(ctx context.Context, keys ...string) (changed func(error) error) {
	if s.rdb == nil {
		return told
	}
	who := s.listening(ctx)
	if who == nobody {
		return told
	}
	var n int64 // 0 is heard, too, but nobody misses it
	err := s.aside(ctx, s.numberKey(), func(ctx context.Context) (err error) {
		n, err = s.rdb.Incr(ctx, s.numberKey()).Result()
		return err
	})
	if err != nil {
		s.in.failed(ctx, "publish", err)
	}
	return func(err error) error {
		if err != nil && who == perhaps {
			return err // and a number taken in vain makes others drop what they keep
		}
		if failed := s.publish(ctx, n, keys); failed != nil {
			s.in.failed(ctx, "publish", failed)
			if err == nil && n == 0 {
				return fmt.Errorf("cache: other processes were not told of a change: %w", failed)
			}
		}
		return err
	}
}

func told(err error) error { return err }

// changedUnsaid is for changes that are not named, as they are too many: who misses a number drops what it keeps.
func (s *Store) changedUnsaid(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if s.listening(ctx) == nobody {
		return nil
	}
	return s.aside(ctx, s.numberKey(), func(ctx context.Context) error {
		return numberScript.Run(ctx, s.rdb, []string{s.numberKey()}).Err()
	})
}

// numberScript takes a number, also on a server that is full. KEYS: number.
var numberScript = redis.NewScript(`
redis.call('PERSIST', KEYS[1])
return redis.call('INCR', KEYS[1])`)

// publish tells who listens. A cluster client sends it to one master after another.
func (s *Store) publish(ctx context.Context, n int64, keys []string) (err error) {
	text := strconv.AppendInt(nil, n, 10)
	for _, key := range keys { // which may have any bytes
		text = strconv.AppendQuote(append(text, '\n'), key)
	}
	ctx = context.WithoutCancel(ctx)
	for range publishTries {
		tctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout/publishTries)
		err = s.rdb.Publish(tctx, s.changesName(), text).Err()
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
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
	if err := sleep(ctx, s.unpublished()); err != nil {
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

// unpublished is for how long after the mark was left there may still be changes of processes that do not know of it.
func (s *Store) unpublished() time.Duration { return markKnown + s.stepTimeout() }

func (s *Store) mark(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	return s.rdb.Set(ctx, s.markKey(), "1", s.unpublished()+markLife).Err() // it is left once before that wait
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
