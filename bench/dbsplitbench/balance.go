package dbsplitbench

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

const balanceNote = "Eight callers read without a pause from two replicas, each behind a proxy. Each answer says which server gave it. In brackets: the lowest and the highest share in any one second."

func (l *lab) balance(ctx context.Context) ([]report.Row, error) {
	c, err := l.servers(ctx)
	if err != nil {
		return nil, err
	}
	var proxies [2]*faultconn.Proxy
	for i := range proxies {
		if proxies[i], err = faultconn.New(c.Replica(i).Addr()); err != nil {
			return nil, err
		}
		defer proxies[i].Close()
	}
	db, stop, err := openSplit(ctx, &dbsplit.Options{}, c.Primary().Addr(), proxies[0].Addr(), proxies[1].Addr())
	if err != nil {
		return nil, err
	}
	defer stop()
	slow, err := serverPort(c.Replica(1).Addr())
	if err != nil {
		return nil, err
	}
	seconds := l.opts.times(8)
	equal, err := shareOf(ctx, db, slow, seconds)
	if err != nil {
		return nil, err
	}
	proxies[1].Delay(faultconn.ToClient, 20*time.Millisecond)
	delayed, err := shareOf(ctx, db, slow, seconds)
	if err != nil {
		return nil, err
	}
	return []report.Row{
		{
			What: "share of one of two equal replicas", Goal: "50 % ± 10 %: 45 to 55 %", Peer: "round robin: 50 %", Ours: equal.String(),
			Met: report.All(report.AtLeast(equal.all, 0.45), report.AtMost(equal.all, 0.55)),
		},
		{
			What: "share of one of two replicas that is 20 ms slower", Goal: "≤ 20 %", Peer: "round robin: 50 %", Ours: delayed.String(),
			Met: report.AtMost(delayed.all, 0.20),
		},
	}, nil
}

func serverPort(addr string) (int, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// shares are which part of the reads one server answered: of all, and at least and at most in one second.
type shares struct{ all, low, high float64 }

func (s shares) String() string {
	return fmt.Sprintf("%s (%s to %s)", report.Percent(s.all), report.Percent(s.low), report.Percent(s.high))
}

// shareOf reads for some seconds and returns the shares of the server on port.
func shareOf(ctx context.Context, db *dbsplit.DB, port int, seconds int) (shares, error) {
	type count struct{ all, its int }
	var mu sync.Mutex
	counts := make([]count, seconds)
	begun := time.Now()
	var g errgroup.Group
	for range maxConns {
		g.Go(func() error {
			for {
				var by int
				if err := db.Read().QueryRow(ctx, "select inet_server_port()").Scan(&by); err != nil {
					return err
				}
				second := int(time.Since(begun) / time.Second)
				if second >= seconds {
					return nil
				}
				mu.Lock()
				counts[second].all++
				if by == port {
					counts[second].its++
				}
				mu.Unlock()
			}
		})
	}
	if err := g.Wait(); err != nil {
		return shares{}, err
	}
	s := shares{low: 1}
	var sum count
	for i, c := range counts {
		if c.all == 0 {
			return shares{}, fmt.Errorf("no read in second %d", i)
		}
		sum.all += c.all
		sum.its += c.its
		share := float64(c.its) / float64(c.all)
		s.low, s.high = min(s.low, share), max(s.high, share)
	}
	s.all = float64(sum.its) / float64(sum.all)
	return s, nil
}
