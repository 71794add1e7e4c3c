package dbsplit

import (
	"math/bits"

	"github.com/scaleaware/scaleaware"
)

// Caught reports whether a replica that serves reads has replayed all of tokens, so that a read that must see them need not
// go to the primary. It is true, too, when there is nothing to wait for: no replica, no position of this database, one that
// is not known. It answers from memory; package queue asks it before it starts jobs that would rather wait.
func (db *DB) Caught(tokens scaleaware.Tokens) bool {
	s := db.snap.Load()
	if s == nil || s.replicas == 0 {
		return true
	}
	own := db.own(s, tokens)
	if own.IsZero() || own.Unknown() {
		return true
	}
	for set := s.replicas; set != 0; set &= set - 1 {
		v := &s.views[bits.TrailingZeros64(set)]
		if covers, known := v.at.Covers(own); covers && known && !v.barred {
			return true
		}
	}
	return false
}
