package queue

import (
	"fmt"
	"strconv"

	"github.com/scaleaware/scaleaware"
)

// parsePosition reads what PostgreSQL says about itself: its system identifier, its timeline in hexadecimal, and
// its insert position.
func parsePosition(system, timeline, lsn string) (scaleaware.Token, error) {
	id, err := strconv.ParseUint(system, 10, 64)
	if err != nil {
		return scaleaware.Token{}, fmt.Errorf("queue: system identifier %q: %w", clip(system), err)
	}
	tli, err := strconv.ParseUint(timeline, 16, 32)
	if err != nil {
		return scaleaware.Token{}, fmt.Errorf("queue: timeline %q: %w", clip(timeline), err)
	}
	position, err := scaleaware.ParseLSN(lsn)
	if err != nil {
		return scaleaware.Token{}, err
	}
	// Right after a page header nothing is on the page yet, and a replica that has everything stands at its start.
	const page, header = 8192, 24
	if position%page == header {
		position -= header
	}
	return scaleaware.Token{System: id, Timeline: uint32(tli), LSN: position}, nil
}
