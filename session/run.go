package session

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// signEvery is how often a sign of life is sent through Redis to ourselves. One that comes in proves that news do.
	signEvery = 300 * time.Millisecond
	// maxNews is how many pieces of news may wait. When more do, everything is looked at.
	maxNews = 1024
)

// channel is where instances tell each other what ended. A channel is no key.
func (s *Store) channel() string { return s.opts.Prefix + "ended" }

// Run listens for what other instances end, until ctx does: without it a LogoutEverywhere elsewhere takes up to a second to be
// noticed, reads cost a command more each second, and Watch notices nothing. It costs Redis two commands each 300 ms, and
// at most two a second, in pipelines, for each stream that Watch guards. It returns nil.
func (m *Manager) Run(ctx context.Context) error {
	if m.watch == nil {
		<-ctx.Done()
		return nil
	}
	m.running.Store(true)
	defer m.running.Store(false)
	l := &listener{m: m, store: m.watch.store, sign: m.watch.store.channel() + ":" + rand.Text(), news: make(chan string, maxNews)}
	var all sync.WaitGroup
	for _, part := range []func(context.Context){l.listen, l.signs, l.look} {
		all.Go(func() { part(ctx) })
	}
	all.Wait()
	m.principals.cache.lapse()
	return nil
}

// listener hears the news for one Run.
type listener struct {
	m     *Manager
	store *Store
	sign  string // the channel of our signs of life
	news  chan string

	mu   sync.Mutex
	sent [8]int64 // when the latest signs were sent, as UnixNano
	next int

	latest latest
}

func (l *listener) listen(ctx context.Context) {
	sub := l.store.rdb.Subscribe(ctx, l.store.channel(), l.sign)
	defer sub.Close()
	in := sub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(time.Second), redis.WithChannelSize(maxNews))
	for {
		select {
		case <-ctx.Done():
			return
		case got, ok := <-in:
			if !ok {
				return
			}
			switch got := got.(type) {
			case *redis.Subscription: // the first one, or again after a connection was lost
				l.missed()
			case *redis.Message:
				l.take(got.Channel, got.Payload)
			}
		}
	}
}

// missed is for news that may have got lost.
func (l *listener) missed() {
	l.m.principals.cache.lapse()
	l.m.recent.forget("")
	l.tell("")
}

func (l *listener) take(channel, news string) {
	switch {
	case channel == l.sign:
		at, err := strconv.ParseInt(news, 10, 64)
		if err == nil && l.ours(at) && at > l.m.principals.cache.heard.Load() {
			l.m.principals.cache.heard.Store(at)
		}
	case len(news) > 1 && news[0] == 'p':
		l.m.principals.cache.forget(news[1:])
		l.m.recent.forget("")
		l.tell(news)
	case len(news) > 1 && news[0] == 's':
		l.m.recent.forget(news[1:])
		l.tell(news)
	}
}

// tell has the watchers looked at whom news concern.
func (l *listener) tell(news string) {
	select {
	case l.news <- news:
	default: // the regular look finds it
		l.store.count("watch", "overflow")
	}
}

func (l *listener) ours(at int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sent := range l.sent {
		if sent == at {
			return true
		}
	}
	return false
}

func (l *listener) signs(ctx context.Context) {
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	for {
		l.sendSign(ctx)
		l.checkLatest(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *listener) sendSign(ctx context.Context) {
	now := time.Now().UnixNano()
	l.mu.Lock()
	l.sent[l.next%len(l.sent)] = now
	l.next++
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.store.opts.StoreTimeout)
	defer cancel()
	if err := l.store.rdb.Publish(ctx, l.sign, now).Err(); err != nil && ctx.Err() != context.Canceled {
		l.store.count("sign", "error")
	}
}

func (l *listener) look(ctx context.Context) {
	timer := time.NewTimer(l.m.watch.every())
	defer timer.Stop()
	for {
		news := ""
		select {
		case <-ctx.Done():
			return
		case news = <-l.news:
		case <-timer.C:
			timer.Reset(l.m.watch.every())
		}
		if err := l.m.watch.check(ctx, news); err != nil && ctx.Err() == nil {
			l.m.opts.Logger.WarnContext(ctx, "session: cannot tell whether watched sessions still are", "error", err)
		}
	}
}
