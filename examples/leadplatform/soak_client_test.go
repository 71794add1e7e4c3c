package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// soakClient is a logged-in person who creates leads, changes and reads them, and remembers what was acknowledged. Nobody
// else changes its leads' products, so it knows what it must see.
type soakClient struct {
	*client
	s        *soak
	n        int
	dice     *rand.Rand
	serial   int
	leads    []*soakLead
	visitors []visitor
	ends     map[string]string // of an attempt to create, by its e-mail address: acknowledged, refused or doubtful
	history  []string
}

// soakLead is what its owner knows of a lead.
type soakLead struct {
	id, email string
	acked     int            // the latest acknowledged revision
	seen      int            // the latest revision that was read
	products  map[int]string // by acknowledged revision
	doubtful  []string       // products of updates whose outcome is unknown, which may still happen
	refused   []string       // products of updates that were refused, which must not
}

func (s *soak) startClients() *sync.WaitGroup {
	group := new(sync.WaitGroup)
	base := s.p.state(s.t).API
	for n := range soakClients {
		c := &soakClient{client: newClient(s.t, base, fmt.Sprintf("soak-%d", n)), s: s, n: n, ends: map[string]string{}}
		c.dice = rand.New(rand.NewPCG(s.seed, uint64(n)+1))
		c.http.Timeout = 6 * time.Second
		s.clients = append(s.clients, c)
	}
	for _, c := range s.clients {
		group.Go(c.run)
	}
	return group
}

func (c *soakClient) run() {
	for {
		select {
		case <-c.s.quit:
			return
		case <-time.After(time.Duration(50+c.dice.IntN(120)) * time.Millisecond):
		}
		base, ok := c.anyone()
		if !ok {
			continue
		}
		switch draw := c.dice.IntN(100); {
		case draw < 22 || len(c.leads) == 0:
			c.createOne(base)
		case draw < 42:
			c.updateOne(base, c.pick())
		case draw < 91:
			c.readOne(base, c.pick())
		case draw < 93:
			c.visit(base)
		case draw < 95:
			c.revisit(base)
		default:
			c.whoAmI(base)
		}
	}
}

// anyone is an API instance, or the load balancer.
func (c *soakClient) anyone() (base string, ok bool) {
	state, err := c.s.p.read()
	if err != nil {
		return "", false
	}
	all := append(state.APIs(), state.API)
	return all[c.dice.IntN(len(all))], true
}

// pick prefers the latest leads: those are not on all replicas yet.
func (c *soakClient) pick() *soakLead {
	last := len(c.leads) - 1
	if c.dice.IntN(3) > 0 {
		return c.leads[max(0, last-c.dice.IntN(4))]
	}
	return c.leads[c.dice.IntN(len(c.leads))]
}

// try makes a request and tells how it ended: "acknowledged", "refused" (nothing was stored, says the answer), "doubtful"
// or, for what no answer may be, "wrong".
func (c *soakClient) try(method, base, path string, body any, into any) (end string, status int) {
	began := time.Now()
	status, blob := c.do(method, base+path, body)
	switch {
	case status/100 == 2:
		end = "acknowledged"
		if err := json.Unmarshal(blob, into); err != nil {
			c.s.violate(c.last(path), "client %d: %s %s: %s: %v", c.n, method, path, blob, err)
			end = "wrong"
		}
	case status == http.StatusServiceUnavailable:
		end = "refused"
	case status == 0 || status >= 500:
		end = "doubtful"
	default:
		end = "wrong"
	}
	switch {
	case end == "refused" && strings.Contains(string(blob), "Read-only mode"):
		c.s.count("refused by read-only mode")
	case end == "acknowledged":
		c.s.count(method)
	case status == 0:
		c.s.count("no answer")
		c.s.count("error")
	default:
		c.s.count("error")
	}
	text, _ := json.Marshal(body)
	c.history = append(c.history, fmt.Sprintf("%7.2fs %s %s%s %s -> %d %.160s (%v)", began.Sub(c.s.began).Seconds(),
		method, base, path, text, status, strings.TrimSpace(string(blob)), time.Since(began).Round(time.Millisecond)))
	if len(c.history) > 2000 {
		c.history = slices.Delete(c.history, 0, 1000)
	}
	if status == http.StatusUnauthorized {
		c.s.violate(c.last("login"), "client %d was logged out", c.n)
	}
	return end, status
}

// last returns the end of the history that concerns what is named, and the very last request.
func (c *soakClient) last(name string) []string {
	const most = 12
	var lines []string
	for i, line := range c.history {
		if strings.Contains(line, name) || i == len(c.history)-1 {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-most):]
}

func (c *soakClient) createOne(base string) {
	c.serial++
	email := fmt.Sprintf("soak-%d-%d@example.com", c.n, c.serial)
	product := fmt.Sprintf("first-%d", c.serial)
	var got seenLead
	end, status := c.try("POST", base, "/api/v1/leads", map[string]string{"name": "Ada", "email": email, "product": product}, &got)
	c.ends[email] = end
	switch end {
	case "acknowledged":
		c.leads = append(c.leads, &soakLead{id: got.ID, email: email, acked: 1, seen: 1, products: map[int]string{1: product}})
		if got.Revision != 1 || got.Product != product {
			c.s.violate(c.last(email), "client %d created %s and got %+v", c.n, email, got)
		}
		c.readBack(c.leads[len(c.leads)-1])
	case "wrong":
		c.s.violate(c.last(email), "client %d: create is %d", c.n, status)
	}
}

func (c *soakClient) updateOne(base string, l *soakLead) {
	c.serial++
	product := fmt.Sprintf("next-%d", c.serial)
	var got seenLead
	end, status := c.try("PUT", base, "/api/v1/leads/"+l.id, map[string]string{"product": product}, &got)
	switch end {
	case "acknowledged":
		if got.Revision <= l.acked || got.Revision > l.acked+1+len(l.doubtful) || got.Product != product {
			c.s.violate(c.last(l.id), "client %d: update of %s to %s is revision %d with %s, after revision %d was acknowledged and %d updates are doubtful",
				c.n, l.id, product, got.Revision, got.Product, l.acked, len(l.doubtful))
		}
		l.products[got.Revision] = product
		l.acked, l.seen = got.Revision, max(l.seen, got.Revision)
		c.readBack(l)
	case "refused":
		l.refused = append(l.refused, product)
	case "doubtful":
		l.doubtful = append(l.doubtful, product)
	default:
		c.s.violate(c.last(l.id), "client %d: update of its lead %s is %d", c.n, l.id, status)
	}
}

// readBack reads at once, half of the time, what was just acknowledged, and wherever: no replica may have it yet.
func (c *soakClient) readBack(l *soakLead) {
	if base, ok := c.anyone(); ok && c.dice.IntN(2) == 0 {
		c.readOne(base, l)
	}
}

func (c *soakClient) readOne(base string, l *soakLead) {
	var got seenLead
	end, status := c.try("GET", base, "/api/v1/leads/"+l.id, nil, &got)
	switch {
	case end == "wrong":
		c.s.violate(c.last(l.id), "client %d: read of its acknowledged lead %s is %d", c.n, l.id, status)
	case end == "acknowledged":
		if problem := l.check(got); problem != "" {
			c.s.violate(c.last(l.id), "client %d read its lead %s: %s", c.n, l.id, problem)
		}
		if got.Revision < l.seen {
			// Only an update whose outcome its client never learned can be seen and not seen: no token tells of it.
			c.s.count("doubtful update seen, then not seen")
		}
		l.seen = max(l.seen, got.Revision)
	}
}

// check compares what a read returned with what its owner knows; empty when all is well.
func (l *soakLead) check(got seenLead) string {
	product, acked := l.products[got.Revision]
	switch {
	case got.Revision < l.acked:
		return fmt.Sprintf("revision %d, after revision %d was acknowledged", got.Revision, l.acked)
	case got.Revision > len(l.products)+len(l.doubtful):
		return fmt.Sprintf("revision %d, with %d changes acknowledged and %d doubtful", got.Revision, len(l.products), len(l.doubtful))
	case acked && got.Product != product:
		return fmt.Sprintf("revision %d is %s, and was acknowledged as %s", got.Revision, got.Product, product)
	case !acked && slices.Contains(l.refused, got.Product):
		return fmt.Sprintf("revision %d is %s, which was refused", got.Revision, got.Product)
	case !acked && !slices.Contains(l.doubtful, got.Product):
		return fmt.Sprintf("revision %d is %s, which was never asked for", got.Revision, got.Product)
	}
	return ""
}

func (c *soakClient) whoAmI(base string) {
	var me struct{ User string }
	end, status := c.try("GET", base, "/api/v1/me", nil, &me)
	if end == "wrong" || end == "acknowledged" && me.User != c.user {
		c.s.violate(c.last("/me"), "client %d is %q to %s (status %d)", c.n, me.User, base, status)
	}
}
