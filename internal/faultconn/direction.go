package faultconn

import (
	"sync"
	"time"
)

// Direction says which half of each connection a fault acts upon.
type Direction int

const (
	// ToServer is what the client sends.
	ToServer Direction = 1 << iota
	// ToClient is what the server sends.
	ToClient
	// Both is both directions.
	Both = ToServer | ToClient
)

// fault is what is wrong with one direction at the moment.
type fault struct {
	delay time.Duration
	rate  int64 // bytes per second; 0 is unlimited
	stall bool
	drop  bool
}

// conditions holds the fault of both directions and tells waiting pumps about changes.
type conditions struct {
	mu       sync.Mutex
	toServer fault
	toClient fault
	changed  chan struct{} // closed and replaced at each change
}

func (c *conditions) get(d Direction) (fault, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d == ToServer {
		return c.toServer, c.changed
	}
	return c.toClient, c.changed
}

func (c *conditions) set(d Direction, change func(*fault)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d&ToServer != 0 {
		change(&c.toServer)
	}
	if d&ToClient != 0 {
		change(&c.toClient)
	}
	close(c.changed)
	c.changed = make(chan struct{})
}
