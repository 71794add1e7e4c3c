package cache

import "github.com/scaleaware/scaleaware"

// covers reports whether an entry read as of asOf may be given to a caller that must see need. Databases that the
// entry was not read from do not matter; an entry that was read from none has no known age and is not fresh.
func covers(asOf, need scaleaware.Tokens) bool {
	if len(need) == 0 {
		return true
	}
	if len(asOf) == 0 {
		return false
	}
	for _, want := range need {
		have := asOf.For(want.System)
		if have.IsZero() {
			continue
		}
		if ok, _ := have.Covers(want); !ok { // not comparable counts as not covered
			return false
		}
	}
	return true
}
