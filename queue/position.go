package queue

import (
	"fmt"
	"strconv"

	"github.com/scaleaware/scaleaware"
)

// parsePosition reads what PostgreSQL says about itself: its system identifier, its timeline in hexadecimal,
// its insert position, and the sizes of its log's pages and segments in bytes.
func parsePosition(system, timeline, lsn string, blockSize, segmentSize uint64) (scaleaware.Token, error) {
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
	return scaleaware.Token{System: id, Timeline: uint32(tli), LSN: position.PageStart(blockSize, segmentSize)}, nil
}
