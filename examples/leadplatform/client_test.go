package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strconv"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// seenLead is what a client sees of one.
type seenLead struct {
	ID, Product string
	Score       *int
	Revision    int
}

// client is one logged-in person. Cookies do not tell ports apart, so it has one session on all instances.
type client struct {
	t    *testing.T
	http *http.Client
	user string
}

func newClient(t *testing.T, base, user string) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	c := &client{t: t, user: user, http: &http.Client{Jar: jar, Transport: transport, Timeout: 15 * time.Second}}
	t.Cleanup(transport.CloseIdleConnections)
	for tries := 1; ; tries++ { // 503 asks to try again: the machine may be too busy to reach Redis in time
		status, body := c.do("POST", base+"/login", map[string]string{"user": user})
		if status == http.StatusOK {
			return c
		}
		if status != http.StatusServiceUnavailable || tries == 20 {
			t.Fatalf("login: %d %s, at try %d", status, body, tries)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// do returns status 0 when there was no answer.
func (c *client) do(method, url string, body any) (status int, reply []byte) {
	var payload io.Reader
	if body != nil {
		blob, err := json.Marshal(body)
		if err != nil {
			c.t.Error(err)
		}
		payload = bytes.NewReader(blob)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), method, url, payload)
	if err != nil {
		c.t.Error(err)
		return 0, nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	reply, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return resp.StatusCode, reply
}

func (c *client) create(base string) (seenLead, int) {
	status, body := c.do("POST", base+"/api/v1/leads", map[string]string{"name": "Ada", "email": c.user + "@example.com", "product": "home"})
	var l seenLead
	if status == http.StatusCreated {
		if err := json.Unmarshal(body, &l); err != nil {
			c.t.Errorf("created: %s: %v", body, err)
		}
	}
	return l, status
}

func (c *client) get(base, id string) (l seenLead, status int) {
	status, body := c.do("GET", base+"/api/v1/leads/"+id, nil)
	if status == http.StatusOK {
		if err := json.Unmarshal(body, &l); err != nil {
			c.t.Errorf("got: %s: %v", body, err)
		}
	}
	return l, status
}

// call makes a request of the management listener and decodes its answer, failing unless the status is 2xx.
func call[T any](t *testing.T, method, url, body string) (reply T) {
	t.Helper()
	status, _, blob := send(t, method, url, body)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, url, status, blob)
	}
	if err := json.Unmarshal(blob, &reply); err != nil {
		t.Fatalf("%s %s: %s: %v", method, url, blob, err)
	}
	return reply
}

func send(t *testing.T, method, url, body string) (status int, header http.Header, reply []byte) {
	t.Helper()
	var payload io.Reader
	if body != "" {
		payload = bytes.NewReader([]byte(body))
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, payload)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 60 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(fmt.Errorf("%s %s: %w", method, url, err))
	}
	defer resp.Body.Close()
	reply, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, reply
}
