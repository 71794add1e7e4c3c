//go:build unix

package dbsplit

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// eachRoute runs f for snapshots of 2 to 32 replicas, for callers that have written nothing and for those that have. bench/
// looks for these names.
func eachRoute(b *testing.B, f func(b *testing.B, s *snapshot, token scaleaware.Token)) {
	for _, replicas := range []int{2, 4, 8, 16, 32} {
		s := &snapshot{views: []view{primaryAt(60)}, settled: true}
		for range replicas {
			s.views = append(s.views, replicaAt(60, time.Second))
		}
		s.weigh()
		for _, c := range []struct {
			name  string
			token scaleaware.Token
		}{{"none", scaleaware.Token{}}, {"token", at(2, 50)}} {
			b.Run(fmt.Sprintf("replicas=%d/token=%s", replicas, c.name), func(b *testing.B) {
				b.ReportAllocs()
				before := cpuTime(b)
				f(b, s, c.token)
				// Unlike ns/op it does not count what other processes take.
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var goroutines atomic.Uint64

// BenchmarkRoute is the decision alone, on all of -cpu.
func BenchmarkRoute(b *testing.B) {
	eachRoute(b, func(b *testing.B, s *snapshot, token scaleaware.Token) {
		b.RunParallel(func(pb *testing.PB) {
			random := goroutines.Add(1)
			for pb.Next() {
				random = random*6364136223846793005 + 1442695040888963407
				d := &demand{token: token, bound: time.Minute, now: 2 * time.Second, random: random ^ random>>29}
				if c := route(s, d); c.node < 1 {
					b.Errorf("chose %+v", c)
					return
				}
			}
		})
	})
}

// BenchmarkDecide is the decision with all that a read does for it: the watermark, the clock, the random number.
func BenchmarkDecide(b *testing.B) {
	var nodes Nodes
	nodes.Primary = "postgres://127.0.0.1:1/x?sslmode=disable"
	for i := range 32 { // as many as eachRoute has
		nodes.Replicas = append(nodes.Replicas, fmt.Sprintf("postgres://127.0.0.1:%d/x?sslmode=disable", i+2))
	}
	db, err := Open(b.Context(), nodes, nil) // nothing is connected before it is used
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.system.Store(system)
	db.sighted(at(2, 60), time.Now(), false)
	r := db.Read(MaxStaleness(time.Hour))
	eachRoute(b, func(b *testing.B, s *snapshot, token scaleaware.Token) {
		s.nodes = (*db.places.Load())[:len(s.views)]
		db.snap.Store(s)
		b.RunParallel(func(pb *testing.PB) {
			ctx := b.Context()
			if !token.IsZero() {
				var w *scaleaware.Watermark
				ctx, w = scaleaware.WithWatermark(ctx) // each caller has its own
				w.Raise(token)
			}
			for pb.Next() {
				var d decision
				if err := r.decide(ctx, 0, &d); err != nil || !d.onReplica {
					b.Errorf("on a replica: %v, error %v", d.onReplica, err)
					return
				}
			}
		})
	})
}
