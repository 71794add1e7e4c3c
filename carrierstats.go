package scaleaware

import (
	"errors"
	"sync/atomic"
)

// CarrierStats counts what a Carrier did since it was made.
type CarrierStats struct {
	// Accepted counts tokens taken from requests and, by Transport, from responses.
	Accepted uint64
	// Malformed, Oversized, Forged and Expired count tokens that were ignored.
	Malformed, Oversized, Forged, Expired uint64
	// Sent counts responses that carried a raised token, and requests that Transport gave one.
	Sent uint64
	// Failed counts positions that could not be had in time.
	Failed uint64
	// Late counts requests that wrote after their response had begun.
	Late uint64
}

type carrierStats struct {
	accepted, malformed, oversized, forged, expired, sent, failed, late atomic.Uint64
}

func (s *carrierStats) count(text string, err error) {
	switch {
	case err == nil:
		s.accepted.Add(1)
	case errors.Is(err, ErrExpired):
		s.expired.Add(1)
	case errors.Is(err, ErrSignature):
		s.forged.Add(1)
	case len(text) > maxSigned:
		s.oversized.Add(1)
	default:
		s.malformed.Add(1)
	}
}

// Stats returns the counts so far.
func (c *Carrier) Stats() CarrierStats {
	s := &c.stats
	return CarrierStats{
		Accepted: s.accepted.Load(), Malformed: s.malformed.Load(), Oversized: s.oversized.Load(), Forged: s.forged.Load(),
		Expired: s.expired.Load(), Sent: s.sent.Load(), Failed: s.failed.Load(), Late: s.late.Load(),
	}
}
