package dbsplit

import "time"

// readmission is the least time between two admissions of a node that comes and goes: in between it answers the monitor,
// but gets no reads while anybody else can serve them.
const readmission = 5 * time.Second

// admission is whether a node that answers may be relied on.
type admission struct {
	let    time.Time // when it was last let in
	back   time.Time // the same, when it had been away before; its slow start begins then
	barred bool
}

// admit decides on a node that has answered at now.
func (a admission) admit(before standing, now time.Time) admission {
	switch {
	case before.up && !a.barred:
		return a
	case a.let.IsZero() && !before.probed:
		return admission{let: now}
	case !a.let.IsZero() && now.Sub(a.let) < readmission:
		a.barred = true
		return a
	default:
		return admission{let: now, back: now}
	}
}
