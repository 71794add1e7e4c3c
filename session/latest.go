package session

import (
	"context"
	"crypto/rand"
	"strings"
	"time"
)

// Redis has a list of the latest revocations of principals, the last one first, for instances that the news has not reached: a
// message may be lost without a connection being lost, and then nobody knows of it. An entry is unique.

// maxLatest is how many are in the list. Who finds none that he has seen before forgets all that he knows.
const maxLatest = 16

// latest is what an instance has seen of that list.
type latest struct {
	began bool
	entry string
}

// latestKey has braces first, as a principal's keys.
func (s *Store) latestKey() string { return "{" + s.opts.Prefix + "revoked}" }

// enterLatest follows a revocation, whose key is in another slot.
func (p *principals) enterLatest(ctx context.Context, principal string) error {
	s := p.store
	err := latestScript.Run(ctx, s.rdb, []string{s.latestKey()}, rand.Text()+" "+principalNews(principal), maxLatest-1, s.opts.Lifetime.Milliseconds()).Err()
	if err != nil {
		return s.failed("revoke", err)
	}
	return nil
}

// checkLatest takes the revocations that have come since the last look as news.
func (l *listener) checkLatest(ctx context.Context) {
	asked := time.Now().UnixNano()
	call, cancel := context.WithTimeout(ctx, l.store.opts.StoreTimeout)
	defer cancel()
	entries, err := readScript.Run(call, l.store.rdb, []string{l.store.latestKey()}).StringSlice()
	if err != nil {
		if ctx.Err() == nil {
			l.store.count("latest", "error")
		}
		return
	}
	news, known := l.latest.since(entries)
	if !known {
		l.missed()
	}
	for _, n := range news {
		l.take(l.store.channel(), n)
	}
	l.m.principals.cache.checked.Store(asked)
}

// since returns the news of the entries that are new. It is not known what they are when none of them was seen before.
func (s *latest) since(entries []string) (news []string, known bool) {
	was, first := s.entry, !s.began
	s.began, s.entry = true, ""
	if len(entries) > 0 {
		s.entry = entries[0]
	}
	for _, e := range entries {
		if e == was {
			return news, !first
		}
		if _, n, ok := strings.Cut(e, " "); ok {
			news = append(news, n)
		}
	}
	return news, !first && was == "" && len(entries) < maxLatest
}
