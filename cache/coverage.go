package cache

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// cover is one unbroken time in which everything that a master changes is heard, of the slots that it has without a
// break. What was kept in the process under another cover, or under none, is not used: something may have been missed.
type cover struct {
	addr string
	*line
}

// line is what all covers share that rest on one connection.
type line struct {
	heard atomic.Int64 // by the store's clock: all that was changed before then has been heard
	ahead atomic.Int64 // the node's clock, Unix microseconds, at the store's beginning
}

const (
	never  = math.MinInt64 / 2
	always = math.MaxInt64 / 2
)

func newCover(addr string, heard time.Duration) *cover {
	c := &cover{addr, new(line)}
	c.heard.Store(int64(heard))
	return c
}

func (c *cover) end() { c.heard.Store(never) }

// rests reports whether a cover, nil for none, is of the connection of another.
func (c *cover) rests(on *cover) bool {
	if c == nil || on == nil {
		return c == on
	}
	return c.line == on.line
}

// coverage says which cover each slot is under. A Redis that is no cluster has slot 0 only.
type coverage struct {
	clustered bool
	silence   time.Duration // after which nothing is covered
	slots     [clusterSlots]atomic.Pointer[cover]
	guards    [clusterSlots]atomic.Pointer[guard] // of who has, or had last, the slot
	newGuard  func(addr string) *guard

	mu     sync.Mutex
	claims map[string]claim  // by address
	byAddr map[string]*guard // of all that have a claim, or a slot of which nobody else has said that it has it
}

func (c *coverage) guard(slot uint16) *guard { return c.guards[slot].Load() }

// claim is what a master says that it has.
type claim struct {
	cover *cover
	epoch uint64 // of the cluster's configuration: when two claim a slot, the higher one has it
	slots string // the ranges, as CLUSTER NODES prints them
}

func (c *coverage) slot(key string) uint16 {
	if !c.clustered {
		return 0
	}
	return slotOf(key)
}

// at returns the cover of a slot if it is heard of at now, or nil.
func (c *coverage) at(slot uint16, now time.Duration) *cover {
	have := c.slots[slot].Load()
	if have == nil || int64(now)-have.heard.Load() > int64(c.silence) {
		return nil
	}
	return have
}

// holds reports whether what was read from a slot under a cover is still covered at now.
func (c *coverage) holds(have *cover, slot uint16, now time.Duration) bool {
	return have != nil && c.slots[slot].Load() == have && int64(now)-have.heard.Load() <= int64(c.silence)
}

// claimed takes in what a master says that it has. A nil cover means that it is not heard any more.
func (c *coverage) claimed(addr string, now claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.claims[addr]
	if known && was == now {
		return
	}
	if was.cover != nil && was.cover != now.cover {
		was.cover.end()
	}
	if c.claims == nil {
		c.claims, c.byAddr = make(map[string]claim), make(map[string]*guard)
	}
	if now.cover == nil {
		delete(c.claims, addr)
	} else {
		c.claims[addr] = now
	}
	c.lay()
}

// lay gives each slot to the claim with the highest epoch. c.mu is held.
func (c *coverage) lay() {
	for addr := range c.claims {
		if c.byAddr[addr] == nil {
			c.byAddr[addr] = c.newGuard(addr)
		}
	}
	defer c.dismiss()
	var table [clusterSlots]*cover
	var epochs [clusterSlots]uint64
	var away [clusterSlots]bool
	for _, claim := range c.claims {
		if !c.clustered {
			c.slots[0].Store(claim.cover)
			c.guards[0].Store(c.byAddr[claim.cover.addr])
			return
		}
		for from, to := range ranges(claim.slots) {
			for slot := from; slot <= to; slot++ {
				if table[slot] == nil || claim.epoch > epochs[slot] {
					table[slot], epochs[slot] = claim.cover, claim.epoch
				}
			}
		}
		for slot := range leaving(claim.slots) {
			away[slot] = true
		}
	}
	begun := make(map[*cover]*cover)
	for slot, on := range table {
		if on != nil {
			c.guards[slot].Store(c.byAddr[on.addr])
		}
		if away[slot] {
			on = nil // the master that gets its keys may not be heard of yet, and is read from already
		}
		if c.slots[slot].Load().rests(on) {
			continue
		}
		if on != nil && begun[on] == nil { // also for a slot that comes back: it was not heard of meanwhile
			begun[on] = &cover{on.addr, on.line}
		}
		c.slots[slot].Store(begun[on])
	}
}

// dismiss drops the guards of servers that are no masters any more. c.mu is held.
func (c *coverage) dismiss() {
	inUse := make(map[*guard]bool, len(c.byAddr))
	var last *guard
	for slot := range c.guards {
		if g := c.guards[slot].Load(); g != last {
			last, inUse[g] = g, true
		}
	}
	for addr, g := range c.byAddr {
		if _, claims := c.claims[addr]; !claims && !inUse[g] {
			delete(c.byAddr, addr)
			g.dismiss()
		}
	}
}

// covered counts the slots that are heard of.
func (c *coverage) covered(now time.Duration) (slots int) {
	if !c.clustered {
		if c.at(0, now) != nil {
			return clusterSlots
		}
		return 0
	}
	for slot := range c.slots {
		if c.at(uint16(slot), now) != nil {
			slots++
		}
	}
	return slots
}

// ranges reads slots as CLUSTER NODES prints them, and leaves out those on their way.
func ranges(text string) func(yield func(from, to int) bool) {
	return func(yield func(from, to int) bool) {
		for field := range strings.FieldsSeq(text) {
			low, high, isRange := strings.Cut(field, "-")
			from, err := strconv.Atoi(low)
			if err != nil {
				continue
			}
			to := from
			if isRange {
				if to, err = strconv.Atoi(high); err != nil {
					continue
				}
			}
			if from < 0 || to >= clusterSlots || !yield(from, to) {
				return
			}
		}
	}
}

// leaving reads the slots that are on their way to another master, [slot->-id] in CLUSTER NODES.
func leaving(text string) func(yield func(slot int) bool) {
	return func(yield func(slot int) bool) {
		for field := range strings.FieldsSeq(text) {
			number, _, ok := strings.Cut(strings.TrimPrefix(field, "["), "->-")
			if slot, err := strconv.Atoi(number); ok && err == nil && slot >= 0 && slot < clusterSlots && !yield(slot) {
				return
			}
		}
	}
}
