package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"time"
)

const smokeUser = "smoke-test"

// smokeTest is a user with a session, and an operator.
type smokeTest struct {
	at          Place
	client      *http.Client
	scoreWithin time.Duration
	written     smokeLead
}

type smokeLead struct {
	ID, Product string
	Revision    int
	Score       *int
}

func newSmokeTest(at Place, score time.Duration) (*smokeTest, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &smokeTest{at: at, scoreWithin: score, client: &http.Client{Jar: jar, Transport: &http.Transport{}, Timeout: 10 * time.Second}}, nil
}

func (s *smokeTest) lead() map[string]string {
	return map[string]string{"name": "smoke test", "email": "smoke@example.com", "product": "home"}
}

func (s *smokeTest) read(ctx context.Context) (got smokeLead, err error) {
	return got, s.call(ctx, "GET", s.at.Target+"/api/v1/leads/"+s.written.ID, nil, &got, 200)
}

func (s *smokeTest) get(ctx context.Context, url string) (body []byte, err error) {
	return s.send(ctx, "GET", url, nil, 200)
}

// call sends body, wants a status and decodes the answer into reply, when there is one to decode into.
func (s *smokeTest) call(ctx context.Context, method, url string, body, reply any, status int) error {
	got, err := s.send(ctx, method, url, body, status)
	if err != nil || reply == nil {
		return err
	}
	if err := json.Unmarshal(got, reply); err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	return nil
}

func (s *smokeTest) send(ctx context.Context, method, url string, body any, status int) ([]byte, error) {
	var payload io.Reader
	if body != nil {
		blob, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(blob)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if s.at.Token != "" && strings.HasPrefix(url, s.at.Admin) {
		req.Header.Set("Authorization", "Bearer "+s.at.Token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != status {
		return nil, fmt.Errorf("%s %s: %s, want %d: %.200s", method, url, resp.Status, status, bytes.TrimSpace(got))
	}
	return got, nil
}
