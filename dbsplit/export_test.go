package dbsplit

import (
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Bar makes it known of a node that its pooler breaks what is sent to it, as the monitor does; nil lets it in again.
func (db *DB) Bar(node int, err error) { db.members()[node].finding.Store(&finding{bar: err}) }

// LookAgain makes the monitor look for the pooler before a node now, if it is to do that again at all.
func (db *DB) LookAgain(node int) {
	n := db.members()[node]
	if f := *n.finding.Load(); !f.again.IsZero() {
		f.again = time.Now()
		n.finding.Store(&f)
		db.wake(n)
	}
}

// Look makes the monitor look at all nodes now.
func (db *DB) Look() {
	for _, n := range db.members() {
		db.wake(n)
	}
}

// Answered is when the probe was sent that told what is known of a node.
func (db *DB) Answered(node int) time.Time { return db.snap.Load().views[node].sent }

// Samples is how many earlier counts of a node's statements are kept.
func (db *DB) Samples(node string) int {
	db.statements.mu.Lock()
	defer db.statements.mu.Unlock()
	return len(db.statements.nodes[node])
}

// Usual is within which time 95 of 100 recent reads with Hedge were answered.
func (db *DB) Usual() time.Duration { return time.Duration(db.hedges.usual.Load()) }

// Waiting is how many calls wait for a connection of the writing pool.
func (db *DB) Waiting() int64 { return db.writes().tracer.waiting.Load() }

// Orphans is how many callers wait for a primary.
func (db *DB) Orphans() int64 { return db.orphans.Load() }

// Used is how many connections of the writing pool count as used.
func (db *DB) Used() int64 {
	held, _ := db.writes().tracer.usage.now()
	return held
}

// ReadsIdle is for how long no connection of the pool that reads from the primary was taken or given back.
func (db *DB) ReadsIdle() time.Duration {
	_, touched := db.writer.Load().reads.Load().tracer.usage.now()
	return db.now() - touched
}

// DialPrimary changes how the primary is connected to: before Run, and for pools that are made afterwards, as by Resize.
func (db *DB) DialPrimary(change func(pgconn.DialFunc) pgconn.DialFunc) {
	c := db.writer.Load().config.ConnConfig
	c.DialFunc = change(c.DialFunc)
}
