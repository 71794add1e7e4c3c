package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"sync"
	"time"
)

// people create leads and read them back, each as fast as a person might who has many to enter.
type people struct {
	base string
	stop context.CancelFunc
	all  sync.WaitGroup

	mu           sync.Mutex
	acknowledged []string // ids of leads that the platform said were created
	refused      int      // told that writes are refused
	unsure       int      // told that nobody knows, or told nothing
	stale        int      // did not read back what they had created
}

const (
	crowd = 6
	think = 100 * time.Millisecond
)

func startPeople(ctx context.Context, base string) *people {
	ctx, stop := context.WithCancel(ctx)
	p := &people{base: base, stop: stop}
	for n := range crowd {
		p.all.Go(func() { p.work(ctx, fmt.Sprintf("person-%d", n)) })
	}
	return p
}

func (p *people) leave() {
	p.stop()
	p.all.Wait()
}

// so is what people have been told so far.
func (p *people) so() (acknowledged, refused, unsure, stale int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acknowledged), p.refused, p.unsure, p.stale
}

func (p *people) ids() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.acknowledged...)
}

func (p *people) work(ctx context.Context, name string) {
	jar, _ := cookiejar.New(nil) // fails with options only
	client := &http.Client{Jar: jar, Transport: &http.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	loggedIn := false
	for ctx.Err() == nil {
		if loggedIn {
			loggedIn = p.create(ctx, client, name) != http.StatusUnauthorized
		} else {
			status, _ := p.send(ctx, client, http.MethodPost, "/login", map[string]string{"user": name})
			loggedIn = status == http.StatusOK
		}
		select {
		case <-ctx.Done():
		case <-time.After(think):
		}
	}
}

// create enters a lead and, when it is acknowledged, reads it back from whichever instance is next.
func (p *people) create(ctx context.Context, client *http.Client, name string) (status int) {
	status, body := p.send(ctx, client, http.MethodPost, "/api/v1/leads",
		map[string]string{"name": name, "email": name + "@example.com", "product": "home"})
	var lead struct{ ID string }
	if status == http.StatusCreated && json.Unmarshal(body, &lead) == nil {
		read, _ := p.send(ctx, client, http.MethodGet, "/api/v1/leads/"+lead.ID, nil)
		p.note(func() {
			p.acknowledged = append(p.acknowledged, lead.ID)
			if read == http.StatusNotFound {
				p.stale++
			}
		})
		return status
	}
	p.note(func() {
		switch {
		case ctx.Err() != nil || status == http.StatusUnauthorized:
		case status == http.StatusServiceUnavailable:
			p.refused++
		default:
			p.unsure++
		}
	})
	return status
}

func (p *people) note(what func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what()
}

// send returns 0 when there was no answer.
func (p *people) send(ctx context.Context, client *http.Client, method, path string, body any) (status int, reply []byte) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil
	}
	r, err := http.NewRequestWithContext(ctx, method, p.base+path, strings.NewReader(string(text)))
	if err != nil {
		return 0, nil
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if reply, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, reply
}
