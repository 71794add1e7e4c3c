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
// noticed, reads cost a command more each second, and Watch notices nothing. It returns nil.
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
				l.m.principals.cache.lapse()
				l.m.recent.forget("")
				l.tell("")
			case *redis.Message:
				l.take(got)
			}
		}
	}
}

func (l *listener) take(got *redis.Message) {
	switch {
	case got.Channel == l.sign:
		at, err := strconv.ParseInt(got.Payload, 10, 64)
		if err == nil && l.ours(at) && at > l.m.principals.cache.heard.Load() {
			l.m.principals.cache.heard.Store(at)
		}
	case len(got.Payload) > 1 && got.Payload[0] == 'p':
		l.m.principals.cache.forget(got.Payload[1:])
		l.m.recent.forget("")
		l.tell(got.Payload)
	case len(got.Payload) > 1 && got.Payload[0] == 's':
		l.m.recent.forget(got.Payload[1:])
		l.tell(got.Payload)
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
		now := time.Now().UnixNano()
		l.mu.Lock()
		l.sent[l.next%len(l.sent)] = now
		l.next++
		l.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, l.store.opts.StoreTimeout)
		if err := l.store.rdb.Publish(call, l.sign, now).Err(); err != nil && ctx.Err() == nil {
			l.store.count("sign", "error")
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *listener) look(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		news := ""
		select {
		case <-ctx.Done():
			return
		case news = <-l.news:
		case <-tick.C:
		}
		if err := l.m.watch.check(ctx, news); err != nil && ctx.Err() == nil {
			l.m.opts.Logger.WarnContext(ctx, "session: cannot tell whether watched sessions still are", "error", err)
		}
	}
}
