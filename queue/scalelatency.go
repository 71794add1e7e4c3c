package queue

import "time"

// deadBand is by how much the need may differ from the number of workers before it is acted on.
const deadBand = 0.1

// byLatency is Little's law with the bounds that keep it calm: up at once, to the double at most; down to the highest
// need of the last 5 minutes, to the half at most, and from one to none.
func (r ScaleRule) byLatency(d *Decision, s *ScaleState, elapsed time.Duration) {
	in, l := &d.Inputs, &d.Load
	current := d.Previous
	if current < 0 {
		current = in.Workers
	}
	if !in.Known || l.ArrivalsPerSecond < 0 || l.RunSeconds <= 0 {
		r.blind(d)
		return
	}
	s.credit(r, l, in, elapsed)
	utilisation := r.Utilisation
	if utilisation == 0 {
		utilisation = defaultUtilisation
	}
	l.Need = (l.ArrivalsPerSecond/utilisation + l.Backlog/r.Latency.Seconds()) * l.RunSeconds / l.SlotsPerWorker
	need, want := l.Need, ceil(l.Need)
	if in.Active > 0 || in.Due > 0 { // for longer than the window looks back, or while a worker takes its time to start
		need, want = max(need, 1), max(want, 1)
	}
	d.Stages.Asked, d.Reason = want, ""
	if most, ok := d.mostUseful(); ok && want > most {
		need, want, d.Reason = min(need, float64(most)), most, ReasonLimited
	}
	d.Stages.Limited = want
	switch {
	case want > r.Max:
		need, want, d.Reason = float64(r.Max), r.Max, ReasonMaximum
	case want < r.Min:
		need, want, d.Reason = float64(r.Min), r.Min, ReasonMinimum
	}
	d.Stages.Bounded = want
	s.Window.add(s.Seen, want)
	d.Stages.Held = r.hold(d, s, current, need, want)
	d.Stages.Stepped = r.step(d, current, d.Stages.Held)
	d.Workers = d.Stages.Stepped
}

// blind holds, but lets the first job be done, which is how a run time becomes known.
func (r ScaleRule) blind(d *Decision) {
	d.Reason = ReasonUnknown
	if d.Inputs.Known && d.Inputs.Due > 0 && !d.Inputs.Paused && d.Inputs.Bottleneck == "" {
		least := max(1, r.Min)
		if d.Previous < 0 {
			least = max(least, min(d.Inputs.Workers, r.Max))
		}
		d.Workers = max(d.Workers, least)
	}
	n := d.Workers
	d.Stages = ScaleStages{Asked: n, Limited: n, Bounded: n, Held: n, Stepped: n}
}

// hold decides whether the wanted number is to be gone for at all.
func (r ScaleRule) hold(d *Decision, s *ScaleState, current int, need float64, want int) int {
	switch {
	case current > r.Max: // the rule has changed
		d.Reason = ReasonMaximum
		return r.Max
	case current < r.Min:
		d.Reason = ReasonMinimum
		return max(want, r.Min)
	case d.Inputs.Paused:
		d.Reason = ReasonPaused
		return current
	case want > current && d.Inputs.Bottleneck != "":
		d.Reason = ReasonSaturated
		return current
	case want > current && need <= float64(current)*(1+deadBand):
		d.because(ReasonSteady)
		return current
	case want > current:
		d.because(ReasonLoad)
		return want
	case want == current:
		d.because(ReasonSteady)
		return current
	}
	if highest := min(s.Window.highest(), current); highest > want {
		want = highest
		if want == current {
			d.because(ReasonWindow)
			return current
		}
	}
	if float64(want) >= float64(current)*(1-deadBand) {
		d.because(ReasonSteady)
		return current
	}
	d.because(ReasonSurplus)
	return want
}

// because gives a reason unless a stronger one is there.
func (d *Decision) because(r Reason) {
	if d.Reason == "" || r == ReasonWindow || r == ReasonSurplus {
		d.Reason = r
	}
}

// step bounds one step. A bound of the rule itself is kept at once.
func (r ScaleRule) step(d *Decision, current, want int) int {
	n := want
	switch {
	case want > 2*current && current > 0:
		n = 2 * current
	case current == 0 && want > 1:
		n = 1
	case want < (current+1)/2 && current > 1:
		n = (current + 1) / 2
	}
	n = min(max(n, r.Min), r.Max)
	if n != want {
		d.Reason = ReasonStep
	}
	return n
}

// credit takes off the backlog what starting workers would have done since they were asked for. Without it every look
// during a start would ask for more, because the backlog grows until they work (kedacore/keda#1323). It ends when
// they had the time to start and another Latency to work it off.
func (s *ScaleState) credit(r ScaleRule, l *ScaleLoad, in *ScaleInputs, elapsed time.Duration) {
	startup := r.Startup
	if startup == 0 {
		startup = defaultStartup
	}
	since := s.Seen - s.Raised
	switch {
	case since > (startup + r.Latency).Milliseconds():
		s.Credit = 0
	case l.Starting > 0 && since <= startup.Milliseconds():
		s.Credit += float64(l.Starting) * l.SlotsPerWorker / l.RunSeconds * elapsed.Seconds()
	}
	s.Credit = min(s.Credit, float64(in.Due))
	l.Backlog = float64(in.Due) - s.Credit
}
