package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// Traffic is a steady stream of clients with a Zipf-like taste for few leads. Most only read; every sixth is an agent
// who writes, too, reads at once what it wrote, through the load balancer, and counts it when that fails.
type Traffic struct {
	base    string
	clients int
	rate    float64 // requests a second, all clients together
	tally   Tally

	mu    sync.Mutex
	leads []string
}

// Shares of the mix in percent, the first two of agents only; the rest are reads of one lead.
const (
	shareCreate = 7
	shareUpdate = 4
	shareList   = 8
	agentEvery  = 6
)

// NewTraffic returns clients of base that make rate requests a second together.
func NewTraffic(base string, clients int, rate float64) *Traffic {
	return &Traffic{base: base, clients: clients, rate: rate}
}

// Run goes on until ctx ends.
func (t *Traffic) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for n := range t.clients {
		group.Go(func() error { return t.client(ctx, n) })
	}
	return group.Wait()
}

func (t *Traffic) client(ctx context.Context, n int) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 2}
	defer transport.CloseIdleConnections()
	c := &http.Client{Jar: jar, Transport: transport, Timeout: 10 * time.Second}
	loggedIn := false
	pause := time.Duration(float64(t.clients) / t.rate * float64(time.Second))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(rand.ExpFloat64() * float64(pause))):
		}
		if !loggedIn {
			status, _, err := t.do(ctx, c, http.MethodPost, "/login", map[string]string{"user": fmt.Sprintf("agent-%d", n)})
			loggedIn = err == nil && status == http.StatusOK
			continue
		}
		t.step(ctx, c, n%agentEvery == 0)
	}
}

func (t *Traffic) step(ctx context.Context, c *http.Client, agent bool) {
	id, known := t.pick()
	switch draw := rand.IntN(100); {
	case agent && (draw < shareCreate || !known):
		t.create(ctx, c)
	case !known: // nothing to read yet
	case agent && draw < shareCreate+shareUpdate:
		t.update(ctx, c, id)
	case draw < shareCreate+shareUpdate+shareList:
		t.do(ctx, c, http.MethodGet, "/api/v1/leads?limit=20", nil)
	default:
		t.do(ctx, c, http.MethodGet, "/api/v1/leads/"+id, nil)
	}
}

var products = []string{"home", "auto", "life", "health"}

func (t *Traffic) create(ctx context.Context, c *http.Client) {
	n := rand.IntN(1_000_000)
	status, body, err := t.do(ctx, c, http.MethodPost, "/api/v1/leads", map[string]string{
		"name": fmt.Sprintf("Lead %d", n), "email": fmt.Sprintf("lead%d@example.com", n), "product": products[n%len(products)],
	})
	var created lead.Lead
	if err != nil || status != http.StatusCreated || json.Unmarshal(body, &created) != nil {
		return
	}
	t.mu.Lock()
	t.leads = append(t.leads, created.ID)
	t.mu.Unlock()
	t.readBack(ctx, c, created)
}

func (t *Traffic) update(ctx context.Context, c *http.Client, id string) {
	status, body, err := t.do(ctx, c, http.MethodPut, "/api/v1/leads/"+id, map[string]string{"product": products[rand.IntN(len(products))]})
	var updated lead.Lead
	if err == nil && status == http.StatusOK && json.Unmarshal(body, &updated) == nil {
		t.readBack(ctx, c, updated)
	}
}

// readBack reads what the client has just written; others may have written since.
func (t *Traffic) readBack(ctx context.Context, c *http.Client, written lead.Lead) {
	status, body, err := t.do(ctx, c, http.MethodGet, "/api/v1/leads/"+written.ID, nil)
	var got lead.Lead
	if err != nil || status != http.StatusNotFound && (status != http.StatusOK || json.Unmarshal(body, &got) != nil) {
		return
	}
	if got.Revision < written.Revision {
		t.tally.Stale()
	}
}

// pick prefers few leads: the logarithm of the rank is uniform, which is Zipf's law with exponent one.
func (t *Traffic) pick() (id string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.leads) == 0 {
		return "", false
	}
	return t.leads[zipf(len(t.leads))], true
}

func (t *Traffic) do(ctx context.Context, c *http.Client, method, path string, body any) (status int, reply []byte, err error) {
	var payload io.Reader
	if body != nil {
		blob, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		payload = bytes.NewReader(blob)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.base+path, payload)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := c.Do(req)
	if err == nil {
		status = resp.StatusCode
		reply, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if ctx.Err() == nil {
		t.tally.Done(time.Since(began), status, bytes.Contains(reply, []byte("Read-only mode")), err)
	}
	return status, reply, err
}
