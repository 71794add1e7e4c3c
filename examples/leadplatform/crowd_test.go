package main_test

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience is how long somebody waits for an answer.
const patience = 2 * time.Second

// crowd is people who create leads, more than there is time for. Nobody tries again.
type crowd struct {
	base   string
	people []*client

	mu           sync.Mutex
	acknowledged []string
	uncertain    int
}

func newCrowd(t *testing.T, base string) *crowd {
	t.Helper()
	c := &crowd{base: base}
	for range 20 {
		person := newClient(t, base, "crowd")
		person.http.Timeout = patience
		person.http.Transport.(*http.Transport).MaxIdleConnsPerHost = 200
		c.people = append(c.people, person)
	}
	return c
}

func (c *crowd) email() string { return c.people[0].user + "@example.com" }

// outcome counts what became of requests, by the second in which they were made.
type outcome []struct{ good, refused, late, failed int }

func (c *crowd) request(n int, began time.Time, o outcome) {
	second := min(int(time.Since(began)/time.Second), len(o)-1)
	created, status := c.people[n%len(c.people)].create(c.base)
	c.mu.Lock()
	defer c.mu.Unlock()
	at := &o[second]
	switch status {
	case http.StatusCreated:
		at.good++
		c.acknowledged = append(c.acknowledged, created.ID)
	case http.StatusServiceUnavailable:
		at.refused++
	case 0:
		at.late++
		c.uncertain++
	default:
		at.failed++
		c.uncertain++
	}
}

// saturate has as many requests open all the time as it is told, and returns the goodput.
func (c *crowd) saturate(open int, length time.Duration) float64 {
	o, began := make(outcome, int(length/time.Second)), time.Now()
	var group sync.WaitGroup
	for n := range open {
		group.Go(func() {
			for time.Since(began) < length {
				c.request(n, began, o)
			}
		})
	}
	group.Wait()
	return o.goodput()
}

// offer makes requests at a rate that does not depend on the answers.
func (c *crowd) offer(rate float64, length time.Duration) outcome {
	o, began := make(outcome, int(length/time.Second)), time.Now()
	var group sync.WaitGroup
	for n := 0; ; n++ {
		due := time.Duration(float64(n) / rate * float64(time.Second))
		if due >= length {
			break
		}
		time.Sleep(time.Until(began.Add(due))) // it is the load itself
		group.Go(func() { c.request(n, began, o) })
	}
	group.Wait()
	return o
}

func (c *crowd) ledger() (acknowledged []string, uncertain int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acknowledged, c.uncertain
}

// goodput is how many were served in a second.
func (o outcome) goodput() float64 { return o.goodputFrom(0) }

func (o outcome) goodputFrom(from time.Duration) float64 {
	o = o[from/time.Second:]
	good := 0
	for _, second := range o {
		good += second.good
	}
	return float64(good) / float64(len(o))
}

// share is the part of requests that was served.
func (o outcome) share() float64 {
	good, all := 0, 0
	for _, second := range o {
		good, all = good+second.good, all+second.good+second.refused+second.late+second.failed
	}
	return float64(good) / float64(max(all, 1))
}

// wellFrom is the time from which on that part of each second's requests was served.
func (o outcome) wellFrom(part float64) time.Duration {
	from := len(o)
	for from > 0 && o[from-1:from].share() >= part {
		from--
	}
	return time.Duration(from) * time.Second
}

func (o outcome) String() string {
	sum := make(outcome, 1)
	for _, second := range o {
		sum[0].good += second.good
		sum[0].refused += second.refused
		sum[0].late += second.late
		sum[0].failed += second.failed
	}
	return fmt.Sprintf("%5.0f/s served, %5d refused, %5d too late, %4d failed", o.goodput(), sum[0].refused, sum[0].late, sum[0].failed)
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
