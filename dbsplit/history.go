package dbsplit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
)

// timelines are where the timelines before the primary's ended. What was written beyond that is lost.
type timelines struct {
	current uint32 // the timeline whose history was read; 0: none was
	ends    map[uint32]fork
}

// fork is where a timeline ended: between two positions, which are the same when the server's history file was read.
type fork struct{ atLeast, atMost scaleaware.LSN }

// lost reports whether the end of its timeline came before t.
func (h *timelines) lost(t scaleaware.Token) bool {
	if h == nil || t.Unknown() {
		return false
	}
	end, known := h.ends[t.Timeline]
	return known && t.LSN > end.atMost
}

// sawFork notes that a server went from replaying one timeline to writing the next one: the fork is between what it had
// replayed before and where it stood after. monitor.mu is held.
func (db *DB) sawFork(before, now position) {
	if !before.recovering || now.recovering || before.at.System != now.at.System || before.at.Timeline == 0 || now.at.Timeline <= before.at.Timeline {
		return
	}
	db.addForks(0, map[uint32]fork{before.at.Timeline: {atLeast: before.at.LSN, atMost: now.at.LSN}})
}

// addForks takes in what is known more exactly than before.
func (db *DB) addForks(current uint32, ends map[uint32]fork) {
	for {
		old := db.history.Load()
		h := &timelines{current: current, ends: make(map[uint32]fork)}
		if old != nil {
			h.current = max(current, old.current)
			maps.Copy(h.ends, old.ends)
		}
		for timeline, end := range ends {
			if known, ok := h.ends[timeline]; !ok || end.atMost-end.atLeast < known.atMost-known.atLeast {
				h.ends[timeline] = end
			}
		}
		if db.history.CompareAndSwap(old, h) {
			return
		}
	}
}

// learnHistory reads the history file of the primary's timeline, once. It takes the right to call pg_read_file: without
// it only the promotions that this process has seen are known.
func (db *DB) learnHistory(ctx context.Context, n *node, conn *pgx.Conn, at scaleaware.Token) {
	if h := db.history.Load(); at.Timeline == 1 || db.writer.Load() != n || h != nil && h.current >= at.Timeline || n.lacking.has(lackHistory) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	var text *string
	err := conn.QueryRow(ctx, "-- name: dbsplit_history\nselect pg_read_file($1, 0, 1048576, true)", fmt.Sprintf("pg_wal/%08X.history", at.Timeline)).Scan(&text)
	if err == nil && text == nil {
		err = errors.New("there is no such file")
	}
	var ends map[uint32]fork
	if err == nil {
		ends, err = parseHistory(*text)
	}
	if err != nil {
		if ctx.Err() == nil {
			db.in.failed("history")
			db.opts.Logger.Warn("dbsplit: cannot read the history of the primary's timeline, so lost writes may go unnoticed", "db", db.opts.Name, "node", n.name, "timeline", at.Timeline, "error", err)
		}
		ends = nil
	}
	db.addForks(at.Timeline, ends)
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
