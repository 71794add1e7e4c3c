package consistency

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/internal/history"
)

// carriers are the ways in which what a client wrote comes to the process that reads.
var carriers = []string{"session", "cookie", "header", "job", "cache"}

// client is a person with one way of carrying the token. It alone writes its own counter, and looks at its peer's, which
// somebody else writes. It never asks the same instance twice in a row.
type client struct {
	f         *fleet
	h         *history.Session
	name, via string
	own, peer int64
	dice      *rand.Rand
	at        int    // the instance asked last
	kept      string // what it holds: a cookie or a header
	jobs      int
}

func (f *fleet) client(c *history.Checker, via string, own, peer int64, dice *rand.Rand) *client {
	name := fmt.Sprintf("%s-%d", via, own)
	return &client{f: f, h: c.Session(name), name: name, via: via, own: own, peer: peer, dice: dice}
}

// next is another instance than the last one.
func (c *client) next() string {
	c.at = (c.at + 1 + c.dice.IntN(len(c.f.bases)-1)) % len(c.f.bases)
	return c.f.bases[c.at]
}

// ask makes a request of another instance, with the token, and keeps the one that comes back.
func (c *client) ask(ctx context.Context, path string) (status int, answer []string) {
	base := c.next()
	cookie := "scaleaware"
	if c.via == "session" {
		base, cookie = base+"/session", "session"
	}
	resp, body, err := c.f.ask(ctx, base+path, func(r *http.Request) {
		switch {
		case c.kept == "":
		case c.via == "header":
			r.Header.Set("Scaleaware-Token", c.kept)
		default:
			r.AddCookie(&http.Cookie{Name: cookie, Value: c.kept})
		}
	})
	if err != nil {
		c.f.failed(err.Error())
		return 0, nil
	}
	if resp.StatusCode != http.StatusOK {
		c.f.failed(body)
	}
	if c.via == "header" {
		if token := resp.Header.Get("Scaleaware-Token"); token != "" {
			c.kept = token
		}
	} else {
		for _, got := range resp.Cookies() {
			if got.Name == cookie {
				c.kept = got.Value
			}
		}
	}
	return resp.StatusCode, strings.Fields(body)
}

func (c *client) login(ctx context.Context) error {
	if c.via != "session" {
		return nil
	}
	if status, answer := c.ask(ctx, "/login?as="+c.name); status != http.StatusOK || c.kept == "" {
		return fmt.Errorf("login of %s: %d %v", c.name, status, answer)
	}
	return nil
}

// step reads both counters and, if it is to, increases the client's own; by a job, somebody else then reads them too.
func (c *client) step(ctx context.Context, write bool) {
	path := fmt.Sprintf("/step?own=%d&peer=%d", c.own, c.peer)
	if c.via == "cache" {
		path += "&cached"
	}
	var saw <-chan string
	if write {
		path += "&write"
		if c.via == "job" {
			c.jobs++
			id := fmt.Sprintf("%d-%d", c.own, c.jobs)
			saw = c.f.await(id)
			// The next instance is never the one asked last, so that the job runs in another process than the write.
			path += fmt.Sprintf("&look=%s&to=%d", id, c.at)
		}
	}
	start := c.f.now()
	status, answer := c.ask(ctx, path)
	if status != http.StatusOK {
		answer = nil
	}
	end := c.f.now()
	c.noteReads(answer, start, end, false)
	if !write {
		return
	}
	op := history.Op{Kind: history.Write, Key: c.own, Via: c.via, Start: start, End: end}
	switch {
	case len(answer) >= 6:
		op.Value, op.Node = number(answer[4]), answer[5]
	case status == http.StatusServiceUnavailable:
		op.Outcome = history.Failed
	default:
		op.Outcome = history.Unknown
	}
	c.h.Add(op)
	if saw != nil && len(answer) == 6 {
		c.wait(ctx, saw)
	}
}

// wait takes what the job saw. The job keeps that to itself: no token comes back from it.
func (c *client) wait(ctx context.Context, saw <-chan string) {
	start := c.f.now()
	select {
	case text := <-saw:
		c.noteReads(strings.Fields(text), start, c.f.now(), true)
	case <-time.After(c.f.http.Timeout):
		c.noteReads(nil, start, c.f.now(), true)
	case <-ctx.Done():
	}
}

// noteReads notes an answer that begins with two values, each with its node.
func (c *client) noteReads(answer []string, start, end time.Duration, aside bool) {
	for i, key := range []int64{c.own, c.peer} {
		op := history.Op{Kind: history.Read, Key: key, Via: c.via, Aside: aside, Start: start, End: end}
		if len(answer) >= 4 {
			op.Value, op.Node = number(answer[2*i]), answer[2*i+1]
		} else {
			op.Outcome = history.Failed
		}
		c.h.Add(op)
	}
}

// now is the time since the history began.
func (f *fleet) now() time.Duration { return time.Since(f.began) }
