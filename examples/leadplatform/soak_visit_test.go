package main_test

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"time"
)

// visitor has logged out: whoever has the cookie is nobody.
type visitor struct {
	cookies []*http.Cookie
	left    time.Time
}

// visit logs somebody in, looks around and logs out again.
func (c *soakClient) visit(base string) {
	at, err := url.Parse(base)
	if err != nil {
		c.s.violate(nil, "%s: %v", base, err)
		return
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.s.violate(nil, "cookies: %v", err)
		return
	}
	v := &client{t: c.t, user: c.user, http: &http.Client{Jar: jar, Transport: c.http.Transport, Timeout: c.http.Timeout}}
	if status, _ := v.do("POST", base+"/login", map[string]string{"user": "visitor of " + c.user}); status != http.StatusOK {
		return
	}
	cookies := jar.Cookies(at)
	if other, ok := c.anyone(); ok {
		v.do("GET", other+"/api/v1/me", nil)
	}
	if status, _ := v.do("POST", base+"/logout", nil); status == http.StatusNoContent {
		c.visitors = append(c.visitors, visitor{cookies, time.Now()})
		c.s.count("visitors who left")
	}
}

// revisit shows the cookie of somebody who has left.
func (c *soakClient) revisit(base string) {
	if len(c.visitors) == 0 {
		return
	}
	v := c.visitors[c.dice.IntN(len(c.visitors))]
	switch user, _ := c.s.bearer(base, v); {
	case user == "":
	case c.s.mayForget(v.left):
		c.s.count("log-outs lost with a Redis master")
	default:
		c.s.violate(nil, "%q, who logged out %v ago, is let in by %s", user, time.Since(v.left).Round(time.Millisecond), base)
	}
}

// bearer asks whom an instance takes the bearer of the cookies for: nobody, if all is well.
func (s *soak) bearer(base string, v visitor) (user string, ok bool) {
	req, err := http.NewRequest("GET", base+"/api/v1/me", nil)
	if err != nil {
		return "", false
	}
	for _, cookie := range v.cookies {
		req.AddCookie(cookie)
	}
	resp, err := s.crowd.http.Transport.RoundTrip(req)
	if err != nil {
		return "", false
	}
	defer resp.Body.Close()
	var me struct{ User string }
	err = json.NewDecoder(resp.Body).Decode(&me)
	return me.User, err == nil && resp.StatusCode == http.StatusOK
}

// mayForget says whether Redis lost a master so soon after that the change may be lost with it.
func (s *soak) mayForget(changed time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.unsure {
		if changed.After(span.from) && changed.Before(span.to) {
			return true
		}
	}
	return false
}

// nobodyReturns shows every cookie of those who have left once more, after all is healed, until there is an answer.
func (s *soak) nobodyReturns() {
	base, strangers := s.p.state(s.t).API, 0
	for _, c := range s.clients {
		for _, v := range c.visitors {
			user, ok := s.bearer(base, v)
			for deadline := time.Now().Add(10 * time.Second); !ok; user, ok = s.bearer(base, v) {
				if time.Now().After(deadline) {
					s.violate(nil, "no answer of /api/v1/me for ten seconds")
					return
				}
			}
			if user == "" {
				strangers++
			} else if !s.mayForget(v.left) {
				s.violate(nil, "%q, who logged out %v ago, is let in", user, time.Since(v.left).Round(time.Millisecond))
			}
		}
	}
	s.log("%d visitors who left are not let in", strangers)
}
