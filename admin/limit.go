package admin

import (
	"math"
	"net/http"
	"sync"
	"time"
)

// maxActors bounds the limiter: an Authorizer may know any number of people.
const maxActors = 1024

// limiter is a token bucket for each actor. Those that the guard refuses share the one of "".
type limiter struct {
	rate  float64 // tokens per second
	burst float64

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate float64) *limiter {
	return &limiter{rate: rate, burst: max(1, 2*rate), buckets: map[string]bucket{}}
}

// take returns nil, or what to answer.
func (l *limiter) take(actor string, now time.Time) *Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[actor]
	if !ok {
		if len(l.buckets) >= maxActors {
			l.evict(now)
		}
		b = bucket{tokens: l.burst, at: now}
	}
	b = l.refill(b, now)
	if b.tokens < 1 {
		l.buckets[actor] = b
		p := problem(http.StatusTooManyRequests, "more than %g writes a second: wait and send fewer", l.rate)
		p.RetryAfter = int(math.Ceil(math.Min((1-b.tokens)/l.rate, 3600)))
		return p
	}
	b.tokens--
	l.buckets[actor] = b
	return nil
}

func (l *limiter) refill(b bucket, now time.Time) bucket {
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens = math.Min(l.burst, b.tokens+passed*l.rate)
		b.at = now
	}
	return b
}

// evict forgets the full buckets, which are as good as new, and one more if there is none.
func (l *limiter) evict(now time.Time) {
	var fullest string
	most := -1.0
	for actor, b := range l.buckets {
		b = l.refill(b, now)
		if b.tokens >= l.burst {
			delete(l.buckets, actor)
		}
		if b.tokens > most {
			fullest, most = actor, b.tokens
		}
	}
	delete(l.buckets, fullest)
}
