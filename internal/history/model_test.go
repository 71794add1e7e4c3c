package history

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// model is a primary with replicas that are random distances behind, and clients whose reads obey a floor, or do not.
type model struct {
	dice     *rand.Rand
	log      [][2]int64 // key, value: each commit
	at       [3]int     // how much of the log each node has; the first is the primary
	now      time.Duration
	final    map[int64]int64
	obedient bool
}

func (m *model) value(node int, key int64) int64 {
	for i := m.at[node] - 1; i >= 0; i-- {
		if m.log[i][0] == key {
			return m.log[i][1]
		}
	}
	return 0
}

func (m *model) commit(key int64) int64 {
	m.final[key]++
	m.log = append(m.log, [2]int64{key, m.final[key]})
	m.at[0] = len(m.log)
	return m.final[key]
}

func (m *model) time() (start, end time.Duration) {
	m.now += time.Millisecond
	return m.now, m.now + time.Microsecond
}

func (m *model) run(steps int) *Report {
	const clients = 4
	c := New()
	var sessions [clients]*Session
	var floors [clients]int
	for i := range sessions {
		sessions[i] = c.Session(fmt.Sprint(i))
	}
	for range steps {
		i := m.dice.IntN(clients)
		op := Op{Key: int64(i), Via: "model"}
		switch draw := m.dice.IntN(10); {
		case draw < 3:
			op.Kind = Write
			if m.dice.IntN(4) == 0 {
				op.Outcome = Unknown
				if m.dice.IntN(2) == 0 {
					m.commit(op.Key)
				}
				break
			}
			op.Value = m.commit(op.Key)
			floors[i] = len(m.log)
		case draw < 5:
			n := 1 + m.dice.IntN(2)
			m.at[n] += m.dice.IntN(len(m.log) - m.at[n] + 1)
			continue
		default:
			n := m.dice.IntN(3)
			if m.obedient && m.at[n] < floors[i] {
				n = 0
			}
			if m.dice.IntN(2) == 0 {
				op.Key = int64(m.dice.IntN(clients))
			}
			op.Value, op.Node = m.value(n, op.Key), fmt.Sprint(n)
			floors[i] = max(floors[i], m.at[n])
		}
		op.Start, op.End = m.time()
		sessions[i].Add(op)
	}
	return c.Report(m.final)
}

// The checker is right about random histories: those of clients that obey their floor keep every promise, and the others do not.
func TestModel(t *testing.T) {
	for seed := range uint64(300) {
		for _, obedient := range []bool{true, false} {
			m := &model{dice: rand.New(rand.NewPCG(seed, 0)), final: map[int64]int64{}, obedient: obedient}
			r := m.run(1000)
			stale := r.Count(ReadYourWrites) > 0 && r.Count(MonotonicReads) > 0
			if obedient && r.Broken() > 0 || !obedient && (!stale || r.Broken() > r.Count(ReadYourWrites)+r.Count(MonotonicReads)) {
				t.Fatalf("seed %d, obedient %t: %v", seed, obedient, r)
			}
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	s := New().Session("a")
	b.ReportAllocs()
	var value int64
	for i := 0; b.Loop(); i++ {
		op := Op{Key: 1, Node: "replica0", Via: "cookie", Start: time.Duration(i), End: time.Duration(i)}
		if i%2 == 0 {
			value++
			op.Kind = Write
		}
		op.Value = value
		s.Add(op)
	}
}
