package dbsplit

import "sync"

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
