package dbsplit

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

const system = 7

func at(timeline uint32, lsn scaleaware.LSN) scaleaware.Token {
	return scaleaware.Token{System: system, Timeline: timeline, LSN: lsn}
}

func primaryAt(lsn scaleaware.LSN) view {
	return view{role: rolePrimary, probed: true, up: true, at: at(2, lsn), share: share(defaultWeight, 0, 0), load: new(load)}
}

func replicaAt(lsn scaleaware.LSN, fresh time.Duration) view {
	return view{role: roleReplica, probed: true, up: true, at: at(2, lsn), fresh: fresh, bounded: true, share: share(defaultWeight, 0, 0), load: new(load)}
}

func with(v view, change func(*view)) view {
	change(&v)
	return v
}

func TestRoute(t *testing.T) {
	down := func(v *view) { v.up = false }
	unbounded := func(v *view) { v.bounded = false }
	suspect := func(v *view) { v.load.doubt(1) }
	stranger := func(v *view) { v.role = roleStranger }
	rival := func(v *view) { v.role = roleRival }
	older := func(v *view) { v.at.Timeline = 1 }
	lagging := func(v *view) { v.lagging = true }
	barred := func(v *view) { v.barred = true }
	const now = 100 * time.Second
	good := replicaAt(50, now-time.Second)
	stale := replicaAt(50, now-20*time.Second)
	primary := primaryAt(60)
	for name, test := range map[string]struct {
		views  []view
		demand demand
		want   choice
	}{
		"a fresh replica":                        {[]view{primary, good}, demand{}, choice{1, becauseReplica, false}},
		"the only fresh one":                     {[]view{primary, stale, good}, demand{}, choice{2, becauseReplica, false}},
		"no replicas":                            {[]view{primary}, demand{}, choice{0, becauseNoReplica, false}},
		"the primary is asked for":               {[]view{primary, good}, demand{primary: true}, choice{0, becauseAsked, false}},
		"the primary is asked for and down":      {[]view{with(primary, down), good}, demand{primary: true}, choice{1, becauseReplica, false}},
		"a replica that has the token":           {[]view{primary, good}, demand{token: at(2, 50)}, choice{1, becauseReplica, false}},
		"a replica behind the token":             {[]view{primary, good}, demand{token: at(2, 51)}, choice{0, becauseBehind, false}},
		"a replica worth waiting for":            {[]view{primary, good}, demand{token: at(2, 51), wait: true}, choice{nobody, 0, true}},
		"a stale replica is not waited for":      {[]view{primary, stale}, demand{token: at(2, 51), wait: true}, choice{0, becauseNoReplica, false}},
		"all stale":                              {[]view{primary, stale}, demand{}, choice{0, becauseStale, false}},
		"all down":                               {[]view{primary, with(good, down)}, demand{}, choice{0, becauseNoReplica, false}},
		"suspect":                                {[]view{primary, with(replicaAt(50, now), suspect)}, demand{}, choice{0, becauseNoReplica, false}},
		"suspect, and nobody else":               {[]view{with(primary, down), with(replicaAt(50, now), suspect)}, demand{}, choice{1, becausePrimaryDown, false}},
		"suspect, and a token":                   {[]view{with(primary, down), with(replicaAt(50, now), suspect)}, demand{token: at(2, 10)}, choice{nobody, 0, false}},
		"suspect, and a bound asked for":         {[]view{with(primary, down), with(replicaAt(50, now), suspect)}, demand{strict: true}, choice{nobody, 0, false}},
		"another cluster":                        {[]view{primary, with(good, stranger)}, demand{}, choice{0, becauseNoReplica, false}},
		"not in recovery":                        {[]view{primary, with(good, rival)}, demand{}, choice{0, becauseNoReplica, false}},
		"at the very bound":                      {[]view{primary, replicaAt(50, now-10*time.Second)}, demand{}, choice{1, becauseReplica, false}},
		"barred, stale, a bound asked for":       {[]view{with(primary, down), with(stale, barred)}, demand{strict: true}, choice{nobody, 0, false}},
		"unknown staleness":                      {[]view{primary, with(good, unbounded)}, demand{}, choice{0, becauseStale, false}},
		"a token from before the promotion":      {[]view{primary, with(good, older)}, demand{token: at(1, 10), wait: true}, choice{0, becauseOldTimeline, false}},
		"a replica on the older timeline":        {[]view{primary, with(good, older)}, demand{token: at(2, 10)}, choice{0, becauseBehind, false}},
		"a token of a newer timeline":            {[]view{primary, good}, demand{token: at(3, 10)}, choice{nobody, 0, false}},
		"a newer timeline, worth waiting for":    {[]view{primary, stale}, demand{token: at(3, 10), wait: true}, choice{nobody, 0, true}},
		"a newer timeline, the primary asked":    {[]view{primary, good}, demand{token: at(3, 10), primary: true}, choice{nobody, 0, false}},
		"a newer timeline, on a replica":         {[]view{primary, with(stale, func(v *view) { v.at = at(3, 10) })}, demand{token: at(3, 10)}, choice{1, becausePrimaryDown, false}},
		"a newer timeline, primary not probed":   {[]view{{load: new(load)}, good}, demand{token: at(3, 10)}, choice{nobody, 0, false}},
		"primary down, stale":                    {[]view{with(primary, down), stale}, demand{}, choice{1, becausePrimaryDown, false}},
		"primary down, stale, a bound asked for": {[]view{with(primary, down), stale}, demand{strict: true}, choice{nobody, 0, false}},
		"primary down, fresh, a bound asked for": {[]view{with(primary, down), good}, demand{strict: true}, choice{1, becauseReplica, false}},
		"primary down, behind the token":         {[]view{with(primary, down), good}, demand{token: at(2, 51)}, choice{nobody, 0, false}},
		"primary down, has the token, stale":     {[]view{with(primary, down), stale}, demand{token: at(2, 50)}, choice{1, becausePrimaryDown, false}},
		"primary never seen":                     {[]view{{probed: true, load: new(load)}, with(good, unbounded)}, demand{}, choice{1, becauseUnbounded, false}},
		"primary not probed yet":                 {[]view{{load: new(load)}, with(good, unbounded)}, demand{}, choice{0, becauseStale, false}},
		"primary in recovery":                    {[]view{with(primary, func(v *view) { v.role = roleReplica }), with(good, down)}, demand{}, choice{0, becauseUnbounded, false}},
		"nobody":                                 {[]view{with(primary, down), with(good, down)}, demand{}, choice{nobody, 0, false}},
		"still lagging":                          {[]view{primary, with(good, lagging)}, demand{}, choice{0, becauseStale, false}},
		"still lagging, no primary":              {[]view{primary, with(good, lagging)}, demand{noPrimary: true, noStale: true}, choice{1, becauseReplica, false}},
		"still lagging, a bound asked for":       {[]view{primary, with(good, lagging)}, demand{strict: true}, choice{1, becauseReplica, false}},
		"barred":                                 {[]view{primary, with(good, barred)}, demand{}, choice{0, becauseNoReplica, false}},
		"barred, behind the token":               {[]view{primary, with(good, barred)}, demand{token: at(2, 51), wait: true}, choice{0, becauseNoReplica, false}},
		"barred, and the primary is down":        {[]view{with(primary, down), with(good, barred), stale}, demand{}, choice{1, becauseReplica, false}},
		"not the primary: fresh":                 {[]view{primary, stale, good}, demand{noPrimary: true}, choice{2, becauseReplica, false}},
		"not the primary: staler":                {[]view{primary, stale}, demand{noPrimary: true}, choice{1, becauseStaler, false}},
		"not the primary: a bound asked for":     {[]view{primary, stale}, demand{noPrimary: true, strict: true}, choice{nobody, 0, false}},
		"not the primary: behind the token":      {[]view{primary, good}, demand{noPrimary: true, token: at(2, 51)}, choice{nobody, 0, false}},
		"neither primary nor stale":              {[]view{primary, stale}, demand{noPrimary: true, noStale: true}, choice{nobody, 0, false}},
		"never stale, the primary is down":       {[]view{with(primary, down), stale}, demand{noStale: true}, choice{nobody, 0, false}},
		"preferred":                              {[]view{primary, good, good, good}, demand{prefer: 1 << 2}, choice{2, becauseReplica, false}},
		"preferred, but stale":                   {[]view{primary, good, stale}, demand{prefer: 1 << 2}, choice{1, becauseReplica, false}},
		"avoided":                                {[]view{primary, good, good}, demand{avoid: 1 << 1}, choice{2, becauseReplica, false}},
		"avoided, but alone":                     {[]view{primary, good}, demand{avoid: 1 << 1}, choice{1, becauseReplica, false}},
		"again, elsewhere":                       {[]view{primary, good, good}, demand{not: 1 << 1, retry: true}, choice{2, becauseRetry, false}},
		"again, on the primary":                  {[]view{primary, good}, demand{not: 1 << 1, retry: true}, choice{0, becauseRetry, false}},
		"again, the primary had failed":          {[]view{primary, stale}, demand{not: 1 << 0, retry: true}, choice{1, becausePrimaryDown, false}},
	} {
		t.Run(name, func(t *testing.T) {
			d := test.demand
			d.now, d.bound = now, 10*time.Second
			if got := route(weighed(test.views...), &d); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// Two random choices spread over all equal replicas, and away from a slow one.
func TestRouteBalances(t *testing.T) {
	const now = time.Second
	s := weighed(primaryAt(60), replicaAt(60, now), replicaAt(60, now), replicaAt(60, now))
	count := func() (n [4]int) {
		random := uint64(1)
		for range 30000 {
			random = random*6364136223846793005 + 1442695040888963407
			n[route(s, &demand{bound: time.Minute, now: now, random: random ^ random>>29}).node]++
		}
		return n
	}
	equal := count()
	for i, n := range equal[1:] {
		if n < 9000 || n > 11000 {
			t.Errorf("replica %d of 3 equal ones got %d of 30000 reads", i, n)
		}
	}
	for range 3 { // one alone would be taken for a hiccup
		s.views[1].load.answer(now-20*time.Millisecond, now)
	}
	if n := count(); n[1] > 200 {
		t.Errorf("the slow replica got %d of 30000 reads", n[1])
	}
	s.views[1].load.answered.Store(0)
	if c := s.views[1].load.average(40 * time.Second); c != minLatency {
		t.Errorf("an old slow answer still costs %d", c)
	}
}

func weighed(views ...view) *snapshot {
	s := &snapshot{views: views}
	s.weigh()
	return s
}

// shares counts who gets n reads.
func shares(s *snapshot, n int, now time.Duration) []int {
	got := make([]int, len(s.views))
	random := uint64(1)
	for range n {
		random = random*6364136223846793005 + 1442695040888963407
		got[route(s, &demand{bound: time.Minute, now: now, random: random ^ random>>29}).node]++
	}
	return got
}

func TestRouteByWeight(t *testing.T) {
	const now = 100 * time.Second
	heavy := with(replicaAt(60, now), func(v *view) { v.share *= 3 })
	s := weighed(primaryAt(60), heavy, replicaAt(60, now))
	if got := shares(s, 10000, now); got[1] < 7000 || got[1] > 8000 {
		t.Errorf("three times the weight got %d of 10000 reads", got[1])
	}
	// With as many reads under way as it has weight, it stays the better choice; with more it does not.
	s.views[1].load.inflight.Store(30)
	s.views[2].load.inflight.Store(10)
	if got := shares(s, 10000, now); got[1] < 7000 || got[1] > 8000 {
		t.Errorf("busy in proportion, it got %d of 10000 reads", got[1])
	}
	s.views[1].load.inflight.Store(90)
	if got := shares(s, 10000, now); got[1] > 100 {
		t.Errorf("three times as busy as it should be, it got %d of 10000 reads", got[1])
	}
}

func TestRouteWarmsUp(t *testing.T) {
	const now, back = 100 * time.Second, 90 * time.Second
	got := func(since time.Duration) int {
		cold := with(replicaAt(60, now), func(v *view) { v.share = share(defaultWeight, back, back+since) })
		return shares(weighed(primaryAt(60), cold, replicaAt(60, now)), 10000, now)[1]
	}
	if early, half := got(slowStart/10), got(slowStart/2); early > 1500 || half < 2000 || half > 4500 {
		t.Errorf("of 10000 reads it got %d at a tenth and %d at half of its slow start", early, half)
	}
	if whole := got(slowStart); whole < 4500 || whole > 5500 {
		t.Errorf("after its slow start it got %d of 10000 reads", whole)
	}
	if first := got(0); first > 100 {
		t.Errorf("at once it got %d of 10000 reads", first)
	}
}

func TestRouteByZone(t *testing.T) {
	const now = 100 * time.Second
	near := with(replicaAt(60, now), func(v *view) { v.near = true })
	s := weighed(primaryAt(60), near, replicaAt(60, now), replicaAt(60, now))
	if got := shares(s, 1000, now); got[1] != 1000 {
		t.Errorf("the replica in this zone got %d of 1000 reads", got[1])
	}
	s.views[1].load.inflight.Store(3)
	if got := shares(s, 1000, now); got[1] != 1000 {
		t.Errorf("somewhat busy, it got %d of 1000 reads", got[1])
	}
	s.views[1].load.inflight.Store(4)
	if got := shares(s, 1000, now); got[1] != 0 {
		t.Errorf("too busy, it got %d of 1000 reads", got[1])
	}
	s.views[1].up = false
	s = weighed(s.views...)
	if got := shares(s, 1000, now); got[2] == 0 || got[3] == 0 || got[0] != 0 {
		t.Errorf("without it the others got %v", got)
	}
}

func TestElect(t *testing.T) {
	node := func(recovering bool, timeline uint32) standing {
		return standing{up: true, probed: true, position: position{recovering: recovering, at: at(timeline, 1)}}
	}
	stranger := node(false, 9)
	stranger.at.System++
	follower := stranger
	follower.recovering = true
	down := func(s standing) standing { s.up = false; return s }
	dead := down(node(false, 1))
	for name, test := range map[string]struct {
		nodes   []standing
		current int
		system  uint64
		want    int
		contest uint64
	}{
		"all well":                                    {[]standing{node(false, 1), node(true, 1)}, 0, system, 0, 0},
		"promoted, the old one is dead":               {[]standing{dead, node(false, 2)}, 0, system, 1, 0},
		"promoted, the old one lives":                 {[]standing{node(false, 1), node(false, 2)}, 0, system, 1, 0},
		"promoted, the old one follows":               {[]standing{node(true, 2), node(false, 2)}, 0, system, 1, 0},
		"the old one comes back":                      {[]standing{node(false, 1), node(false, 2)}, 1, system, 1, 0},
		"the primary is dead":                         {[]standing{dead, node(true, 1)}, 0, system, 0, 0},
		"another cluster":                             {[]standing{dead, stranger}, 0, system, 0, 0},
		"the same timeline twice":                     {[]standing{node(false, 2), node(false, 2)}, 1, system, 1, 3},
		"no guess between two":                        {[]standing{dead, node(false, 2), node(false, 2)}, 0, system, 0, 6},
		"the promoted one is down, the old one lives": {[]standing{node(false, 1), down(node(false, 2))}, 1, system, 1, 0},
		"only a second one on its timeline lives":     {[]standing{dead, node(false, 1)}, 0, system, 0, 3},
		"not all were heard":                          {[]standing{dead, node(false, 2), {}}, 0, system, 0, 0},
		"two of another cluster were heard first":     {[]standing{node(false, 1), stranger, follower}, 0, 0, 0, 0},
		"the later of two":                            {[]standing{dead, node(false, 2), node(false, 3)}, 0, system, 2, 0},
		"never seen the primary: no witness":          {[]standing{{probed: true}, node(false, 2)}, 0, 0, 0, 0},
		"never seen the primary: a replica witnesses": {[]standing{{probed: true}, node(false, 2), node(true, 2)}, 0, 0, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, contest := elect(test.nodes, test.current, test.system)
			if got != test.want || contest != test.contest {
				t.Errorf("elected %d, contested by %b; want %d, %b", got, contest, test.want, test.contest)
			}
		})
	}
}

func TestRouteAllocatesNothing(t *testing.T) {
	s := weighed(primaryAt(60), replicaAt(60, 0), replicaAt(60, 0))
	d := demand{token: at(2, 50), bound: time.Minute, now: time.Second, random: 99}
	if n := testing.AllocsPerRun(100, func() { route(s, &d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
