package dbsplit

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// readsSuffix ends the application_name of sessions that are read-only, so that whoever looks for writers can leave them
// out.
const readsSuffix = " reads"

// writing knows everything of this DB that can write: the pools for writes, those that were replaced and are still in use
// included, and the sessions of operations.
type writing struct {
	mu       sync.Mutex
	pools    map[*pool]struct{}
	sessions int
}

func (w *writing) enter(p *pool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pools == nil {
		w.pools = map[*pool]struct{}{}
	}
	w.pools[p] = struct{}{}
}

func (w *writing) leave(p *pool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pools, p)
}

func (w *writing) session(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions += n
}

// Writing returns how many connections of this process may be writing now: those in use that Options.Gate let through and
// that were not given back yet. A gate that was closed before Writing returned 0 lets none of this process's statements
// write any more. A statement whose connection was lost may go on at the server.
func (db *DB) Writing() int {
	db.writing.mu.Lock()
	defer db.writing.mu.Unlock()
	n := db.writing.sessions
	for p := range db.writing.pools {
		n += int(p.Stat().AcquiredConns())
	}
	return n
}

// Writable returns why nothing can be written at present, or nil: there is no primary, or the one there is lets nobody
// write (SQLSTATE 25006), as managed servers do whose disk is full. It is what a readonly.Trip asks; Options.Gate has no part
// in it. Run has to run for the second.
func (db *DB) Writable(ctx context.Context) error {
	if err := db.Ready(ctx); err != nil {
		return err
	}
	if n := db.writer.Load(); n.refuses.Load() {
		return fmt.Errorf("dbsplit: primary %s is read-only by its own settings (default_transaction_read_only): make room on it, then set that off", n.name)
	}
	return nil
}

// Lagging returns a function that tells why replicas are too far behind, or nil: all that are up are staler than most, or
// have been behind for longer than that since the DB was opened. It is for a readonly.Trip, where writing on would only make
// it worse.
func (db *DB) Lagging(most time.Duration) func(ctx context.Context) error {
	return func(context.Context) error {
		s := db.snap.Load()
		if s == nil {
			return nil
		}
		up, behind := 0, 0
		for _, v := range s.views {
			if v.role != roleReplica || !v.up {
				continue
			}
			up++
			if v.bounded && db.now()-v.fresh > most || v.lacks > 0 && db.now()-v.lacks > most {
				behind++
			}
		}
		if up > 0 && behind == up {
			return fmt.Errorf("dbsplit: all %d replicas are more than %v behind", up, most)
		}
		return nil
	}
}
