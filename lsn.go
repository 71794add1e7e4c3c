package scaleaware

// Sizes of the headers that open each page of PostgreSQL's log, and the first page of each segment.
const (
	pageHeader    = 24
	segmentHeader = 40
)

// PageStart returns the start of the page when l points just behind the page's header, and l otherwise. An insert
// position there means that the last record ended exactly at the page's start, which is where replay will report it:
// without rounding, a replica of an idle primary would never be seen to catch up. Sizes are in bytes, as block_size and
// wal_segment_size say; 0 is unknown and rounds nothing.
func (l LSN) PageStart(blockSize, segmentSize uint64) LSN {
	switch {
	case segmentSize > 0 && uint64(l)%segmentSize == segmentHeader:
		return l - segmentHeader
	case blockSize > 0 && uint64(l)%blockSize == pageHeader:
		return l - pageHeader
	default:
		return l
	}
}
