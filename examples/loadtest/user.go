package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"time"
)

// user is one virtual user: a browser with cookies and a connection of its own, that goes through a scenario once.
type user struct {
	target string
	tally  *Tally
	client *http.Client
	vars   map[string]any
	// due is when the next request should begin. Its latency is counted from there, so that a generator that is late
	// itself does not make the server look fast.
	due time.Time
}

func newUser(target string, timeout time.Duration, arrival time.Time, tally *Tally) (*user, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &user{
		target: target, tally: tally, vars: map[string]any{}, due: arrival,
		client: &http.Client{Jar: jar, Transport: &http.Transport{}, Timeout: timeout},
	}, nil
}

func (u *user) run(ctx context.Context, s Scenario) error {
	defer u.client.CloseIdleConnections()
	for _, step := range s.Flow {
		method, r := step.request()
		if r == nil {
			u.due = u.due.Add(time.Duration(step.Think * float64(time.Second)))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Until(u.due)):
			}
			continue
		}
		if err := u.do(ctx, method, r); err != nil {
			return err
		}
		u.due = time.Now()
	}
	return nil
}

func (u *user) do(ctx context.Context, method string, r *Request) error {
	var payload io.Reader
	if r.JSON != nil {
		body := map[string]string{}
		for name, text := range r.JSON {
			body[name] = fill(text, u.vars)
		}
		blob, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(blob)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.target+fill(r.URL, u.vars), payload)
	if err != nil {
		return err
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	u.tally.Count("http.requests", 1)
	resp, err := u.client.Do(req)
	if err != nil {
		return kind(r, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return kind(r, err)
	}
	u.tally.Answered(r.Name, time.Since(u.due))
	u.tally.Count(fmt.Sprintf("http.codes.%d", resp.StatusCode), 1)
	var missing error
	for _, c := range r.Capture {
		value, ok := extract(body, c.JSON)
		if !ok {
			missing = fmt.Errorf("no %s in the answer to %s", c.JSON, r.Name)
			break
		}
		u.vars[c.As] = value
	}
	for _, name := range r.AfterResponse {
		if err := processor[name](reply{r, resp.StatusCode, body, u.vars}, u.tally); err != nil {
			return err
		}
	}
	return missing
}

// kind is an error without the address, to be counted.
func kind(r *Request, err error) error {
	if timeout, ok := errors.AsType[*url.Error](err); ok {
		if timeout.Timeout() {
			return fmt.Errorf("no answer in time on %s", r.Name)
		}
		err = timeout.Err
		for errors.Unwrap(err) != nil {
			err = errors.Unwrap(err)
		}
	}
	return fmt.Errorf("%w on %s", err, r.Name)
}
