package queue

import (
	"math"
	"time"
)

const (
	arrivalWindow = time.Minute
	runSmoothing  = time.Minute
	// scaleBucket times scaleBuckets is the window of recommendations whose highest holds a scale-down back.
	scaleBucket  = 5 * time.Second
	scaleBuckets = 60
	arrivalMarks = 16 // at least scaleBucket apart, so more than arrivalWindow
	// blindFor is how long nobody may have looked before what was seen earlier says nothing any more.
	blindFor = 30 * time.Second
)

// ScaleState is what a rule remembers between decisions. The zero value is a queue that nobody has looked at. It is
// plain data: Run keeps it in Redis, so that a new leader knows what the last one knew.
type ScaleState struct {
	// Decided says that Workers were wanted, last.
	Decided bool `json:"decided"`
	Workers int  `json:"workers"`
	// Seen is when inputs were last known, Raised when more workers were last wanted, in ms since 1970.
	Seen   int64 `json:"seen_ms"`
	Raised int64 `json:"raised_ms"`
	// RunSeconds is the smoothed mean run time, 0 when unknown; SlotsPerWorker is what living workers last had.
	RunSeconds     float64 `json:"run_seconds"`
	SlotsPerWorker float64 `json:"slots_per_worker"`
	// Credit is how many jobs starting workers would have done by now.
	Credit float64 `json:"credit"`
	// Arrivals and Window are the marks of the last minute and the recommendations of the last five.
	Arrivals ArrivalMarks    `json:"arrivals"`
	Window   RecommendWindow `json:"window"`
}

// observe takes inputs in. It returns the time since the last ones, 0 when nobody has looked for too long.
func (s *ScaleState) observe(in ScaleInputs) (elapsed time.Duration) {
	if !in.Known {
		return 0
	}
	at := in.At.UnixMilli()
	elapsed = time.Duration(at-s.Seen) * time.Millisecond
	if elapsed < 0 { // another server's clock: times of before cannot be compared
		s.Arrivals, s.Window, s.Raised = ArrivalMarks{}, RecommendWindow{}, min(s.Raised, at)
	}
	if s.Seen == 0 || elapsed < 0 || elapsed > blindFor {
		elapsed = 0
		seed := in.Workers
		if s.Decided {
			seed = s.Workers
		}
		s.Window.add(at, seed) // what was not seen may have needed as many: nothing goes down at once
	}
	s.Seen = at
	s.Arrivals.mark(at, in.Arrived)
	if in.Runs > 0 && in.RunSeconds > 0 {
		weight := 1.0
		if s.RunSeconds > 0 {
			weight = 1 - math.Exp(-elapsed.Seconds()/runSmoothing.Seconds())
		}
		s.RunSeconds += weight * (in.RunSeconds - s.RunSeconds)
	}
	if in.Workers > 0 && in.Slots > 0 {
		s.SlotsPerWorker = float64(in.Slots) / float64(in.Workers)
	}
	return elapsed
}

// load derives what the formula needs.
func (s *ScaleState) load(r ScaleRule, in ScaleInputs) ScaleLoad {
	l := ScaleLoad{ArrivalsPerSecond: s.Arrivals.perSecond(), RunSeconds: s.RunSeconds, SlotsPerWorker: s.SlotsPerWorker, Backlog: float64(in.Due)}
	if l.RunSeconds == 0 {
		l.RunSeconds = r.Run.Seconds()
	}
	if r.Slots > 0 {
		l.SlotsPerWorker = float64(r.Slots)
	}
	if l.SlotsPerWorker == 0 {
		l.SlotsPerWorker = defaultSlots
	}
	if s.Decided {
		l.Starting = max(0, s.Workers-in.Workers)
	}
	return l
}

// ArrivalMarks are readings of a counter of arrivals, the oldest first, a few seconds apart.
type ArrivalMarks struct {
	// N marks are used. At is in ms since 1970, Count is the counter's reading.
	N     int                 `json:"n"`
	At    [arrivalMarks]int64 `json:"at_ms"`
	Count [arrivalMarks]int64 `json:"count"`
	// LastAt and Last are the newest reading, which is no mark yet. Lost is what the counter ever fell by: deleted
	// and parked jobs are no negative arrivals.
	LastAt int64 `json:"last_at_ms"`
	Last   int64 `json:"last"`
	Lost   int64 `json:"lost"`
}

func (a *ArrivalMarks) mark(at, arrived int64) {
	count := arrived + a.Lost
	if a.N > 0 && count < a.Last {
		a.Lost += a.Last - count
		count = a.Last
	}
	a.LastAt, a.Last = at, count
	for a.N > 1 && (a.At[1] <= at-arrivalWindow.Milliseconds() || a.N == arrivalMarks) {
		copy(a.At[:], a.At[1:a.N])
		copy(a.Count[:], a.Count[1:a.N])
		a.N--
	}
	if a.N == 0 || at-a.At[a.N-1] >= scaleBucket.Milliseconds() {
		a.At[a.N], a.Count[a.N] = at, count
		a.N++
	}
}

// perSecond is the mean rate over the marks' span, about a minute; -1 when that is less than a second.
func (a *ArrivalMarks) perSecond() float64 {
	span := a.LastAt - a.At[0]
	if a.N == 0 || span < 1000 {
		return -1
	}
	return float64(a.Last-a.Count[0]) * 1000 / float64(span)
}

// RecommendWindow is the highest recommendation of each 5 seconds of the last 5 minutes.
type RecommendWindow struct {
	// Newest numbers the newest bucket, by time. Most has one more than the highest number of each, so that 0 is
	// none; bucket b is at b modulo their number.
	Newest int64               `json:"newest"`
	Most   [scaleBuckets]int32 `json:"most"`
}

// add takes a recommendation in and forgets those that are too old.
func (w *RecommendWindow) add(at int64, n int) {
	bucket := max(at/scaleBucket.Milliseconds(), w.Newest)
	if bucket-w.Newest >= scaleBuckets {
		clear(w.Most[:])
	} else {
		for b := w.Newest + 1; b <= bucket; b++ {
			w.Most[b%scaleBuckets] = 0
		}
	}
	w.Newest = bucket
	w.Most[bucket%scaleBuckets] = max(w.Most[bucket%scaleBuckets], int32(n)+1)
}

func (w *RecommendWindow) highest() int {
	most := int32(0)
	for _, n := range w.Most {
		most = max(most, n)
	}
	return int(most) - 1
}
