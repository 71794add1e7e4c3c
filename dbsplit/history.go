package dbsplit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware"
)

// timelines are where the timelines before the primary's ended. What was written beyond that is lost.
type timelines struct {
	system  uint64
	current uint32 // the timeline whose history was read; 0: none was
	ends    map[uint32]fork
}

// fork is where a timeline ended: between two positions, which are the same when the server's history file was read.
type fork struct{ atLeast, atMost scaleaware.LSN }

// lost reports whether the end of its timeline came before t.
func (h *timelines) lost(t scaleaware.Token) bool {
	if h == nil || h.system != t.System || t.Unknown() {
		return false
	}
	end, known := h.ends[t.Timeline]
	if !known {
		return t.Timeline < h.current // the history that was read knows nothing of that branch
	}
	return t.LSN > end.atMost
}

// toldTokens are the lost positions that were told of. A caller who cannot renew its watermark, such as a job that is tried
// again or a cache's tombstone, would be told each time, and never get on.
type toldTokens struct {
	mu    sync.Mutex
	known map[scaleaware.Token]bool
}

const mostTold = 4096

// first reports whether t is told of for the first time. When there are too many it forgets: better told twice.
func (ts *toldTokens) first(t scaleaware.Token) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.known[t] {
		return false
	}
	if ts.known == nil || len(ts.known) >= mostTold {
		ts.known = make(map[scaleaware.Token]bool)
	}
	ts.known[t] = true
	return true
}

// sawFork notes that a server went from replaying one timeline to writing the next one: the fork is between what it had
// replayed before and where it stood after. monitor.mu is held.
func (db *DB) sawFork(before, now position) {
	if !before.recovering || now.recovering || before.at.System != now.at.System || before.at.Timeline == 0 || now.at.Timeline <= before.at.Timeline {
		return
	}
	if system := db.system.Load(); system != 0 && system != now.at.System {
		return // strangers
	}
	old := db.history.Load()
	h := &timelines{system: now.at.System, ends: make(map[uint32]fork)}
	if old != nil && old.system == h.system {
		h.current = old.current
		maps.Copy(h.ends, old.ends)
	}
	if _, known := h.ends[before.at.Timeline]; !known || h.current == 0 { // of two branches the later one is the present
		h.ends[before.at.Timeline] = fork{atLeast: before.at.LSN, atMost: now.at.LSN}
	}
	db.history.Store(h)
}

// historyPause is the least time between two tries to read a history.
const historyPause = 10 * time.Second

// learnHistory reads the history file of the primary's timeline, once. It takes the right to call pg_read_file: without
// it only the promotions that this process has seen are known. It uses a pooled connection: a slow answer must not look as
// if the primary were down.
func (db *DB) learnHistory(ctx context.Context, n *node, at scaleaware.Token) {
	h := db.history.Load()
	if at.Timeline == 1 || db.writer.Load() != n || h != nil && h.system == at.System && h.current >= at.Timeline || n.lacking.has(lackHistory) || time.Since(n.studied) < historyPause {
		return
	}
	n.studied = time.Now()
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	ends, err := db.readHistory(ctx, n, at.Timeline)
	if err != nil {
		if ctx.Err() == nil {
			db.in.failed("history")
			db.opts.Logger.Warn("dbsplit: cannot read the history of the primary's timeline, so lost writes may go unnoticed", "db", db.opts.Name, "node", n.name, "timeline", at.Timeline, "error", err)
		}
		return
	}
	db.learned(n, h, &timelines{system: at.System, current: at.Timeline, ends: ends})
}

// learned takes in the history that n told, which knows all that was seen before, exactly. What was seen meanwhile it does
// not know, and n may have been replaced: then the next one is read.
func (db *DB) learned(n *node, before, now *timelines) {
	m := &db.monitor
	m.mu.Lock()
	defer m.mu.Unlock()
	if db.writer.Load() == n {
		db.history.CompareAndSwap(before, now)
	}
}

func (db *DB) readHistory(ctx context.Context, n *node, timeline uint32) (map[uint32]fork, error) {
	conn, err := db.acquireRead(ctx, n)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	var text *string
	err = conn.QueryRow(ctx, "-- name: dbsplit_history\nselect pg_read_file($1, 0, 1048576, true)", fmt.Sprintf("pg_wal/%08X.history", timeline)).Scan(&text)
	switch {
	case err != nil:
		return nil, err
	case text == nil:
		return nil, errors.New("dbsplit: there is no history file")
	}
	return parseHistory(*text)
}

// parseHistory reads a timeline history file: a line for each earlier timeline, with its number, the position where the
// next one branched off, and a reason, separated by white space.
func parseHistory(text string) (map[uint32]fork, error) {
	ends := make(map[uint32]fork)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, errors.New("dbsplit: a line of the timeline history has no position")
		}
		timeline, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil || timeline == 0 {
			return nil, errors.New("dbsplit: a line of the timeline history names no timeline")
		}
		end, err := scaleaware.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("dbsplit: timeline history: %w", err)
		}
		ends[uint32(timeline)] = fork{end, end}
	}
	return ends, lines.Err()
}
