package pgcluster

import "fmt"

// FillDisk keeps the server from making any file longer than a number of bytes, as a full disk does, but with EFBIG for ENOSPC and
// so XX000 for 53100. With less than a segment of the log, 16 MB, the next write may be a PANIC, and the server may then end
// while it recovers; with more, tables that are longer cannot grow. [Server.FreeDisk] lifts it; so does a start.
func (s *Server) FillDisk(bytes int64) error {
	if bytes <= 0 {
		return fmt.Errorf("pgcluster: fill the disk of %s: give the bytes that a file may have, more than %d", s.name, bytes)
	}
	return s.limitFiles(bytes)
}

// FreeDisk undoes [Server.FillDisk].
func (s *Server) FreeDisk() error { return s.limitFiles(0) }

func (s *Server) limitFiles(bytes int64) error {
	p := s.current()
	if p == nil {
		return fmt.Errorf("pgcluster: limit the files of %s: it was never started", s.name)
	}
	return p.LimitFiles(bytes)
}
