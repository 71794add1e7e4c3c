package metrics

import "time"

// keptSteps is how many steps of time the rings have.
const keptSteps = 360

// timeline is the axis that rings share: steps of equal length, the newest at head.
type timeline struct {
	step   time.Duration
	newest time.Time // the beginning of the newest step
	steps  int       // how many there are, at most keptSteps
	head   int       // the newest step's index in the rings
}

// advance opens the steps up to now, calling open with the index of each. Time that does not go forward opens none.
func (l *timeline) advance(now time.Time, open func(i int)) {
	if l.newest.IsZero() {
		l.newest, l.steps = now, 1
		open(0)
		return
	}
	passed := int(min(now.Sub(l.newest)/l.step, keptSteps))
	if now.Sub(l.newest) > keptSteps*l.step {
		l.newest = now // all that is kept is empty anyway
	} else if passed > 0 {
		l.newest = l.newest.Add(time.Duration(passed) * l.step)
	}
	for range max(passed, 0) {
		l.head = (l.head + 1) % keptSteps
		l.steps = min(l.steps+1, keptSteps)
		open(l.head)
	}
}

// back is the index of the step that is so many before the newest.
func (l *timeline) back(n int) int { return (l.head - n + keptSteps) % keptSteps }

// kept is the time that is kept.
func (l *timeline) kept() time.Duration { return keptSteps * l.step }
