package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// loadsAllowed are an instance's, half of its pool's ten connections, times the instances.
	loadsAllowed = 3 * 5
	// givenUp are reads that an instance has given up, and tried elsewhere, because a server was silent: PostgreSQL sees that
	// nobody waits for them only when they are done.
	givenUp = 5
)

func (s *soak) crowds() []fault {
	return []fault{
		{name: "crowd at an empty cache", class: "crowd", begin: s.stampede},
		{name: "clients that trickle", class: "trickle", least: 4 * second, most: 8 * second, begin: s.trickle},
	}
}

// trickle opens fifty connections to each instance, over which requests come a byte at a time and never end.
func (s *soak) trickle(*rand.Rand) (string, func() error, error) {
	state, err := s.p.read()
	if err != nil {
		return "", nil, err
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, base := range state.APIs() {
		for range 50 {
			clients.Go(func() { dribble(strings.TrimPrefix(base, "http://"), stop) })
		}
	}
	return fmt.Sprintf("%d instances", len(state.APIs())), func() error { close(stop); clients.Wait(); return nil }, nil
}

func dribble(addr string, stop <-chan struct{}) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	for i := 0; ; i++ {
		const text = "POST /api/v1/leads HTTP/1.1\r\nHost: x\r\nX-Slow: "
		if _, err := conn.Write([]byte{(text + "a")[min(i, len(text))]}); err != nil {
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// stampede empties the cache, holds up everybody who reads leads in the databases, and lets a crowd ask for 150 of them at
// once: no more of its reads are in the databases than the cache's MaxLoads let in.
func (s *soak) stampede(*rand.Rand) (string, func() error, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var ids []string
	text, err := s.ask(`SELECT coalesce(json_agg(id), '[]')::text FROM (SELECT id FROM "Lead" ORDER BY id LIMIT 150) x`)
	if err == nil {
		err = json.Unmarshal([]byte(text), &ids)
	}
	if err != nil {
		return "", nil, err
	}
	conn, err := s.primary().Connect(ctx, soakDatabase)
	if err != nil {
		return "", nil, err
	}
	defer conn.Close(context.Background())
	for _, sql := range []string{"SET lock_timeout = '10s'", "BEGIN", `LOCK TABLE "Lead" IN ACCESS EXCLUSIVE MODE`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", nil, fmt.Errorf("%s: %w", sql, err)
		}
	}
	status, _ := s.operate("POST", "/api/v1/performance/cache/invalidate")
	state, err := s.p.read()
	if err != nil {
		return "", nil, err
	}
	var crowd sync.WaitGroup
	for i, id := range ids {
		instances := state.APIs()
		crowd.Go(func() { s.crowd.get(instances[i%len(instances)], id) })
	}
	most := 0
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); {
		n, err := s.loads(ctx)
		if err != nil {
			return "", nil, err
		}
		most = max(most, n)
	}
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		return "", nil, err
	}
	crowd.Wait()
	if most > loadsAllowed+givenUp {
		s.violate(nil, "%d reads of leads were in the databases at once, %d are allowed", most, loadsAllowed)
	}
	s.count("crowds")
	return fmt.Sprintf("the cache's invalidation: %d; %d leads asked for, %d in the databases at once", status, len(ids), most), nil, nil
}

// loads counts the cache's reads in all databases.
func (s *soak) loads(ctx context.Context) (total int, err error) {
	for _, server := range s.pg.Servers() {
		conn, err := server.Connect(ctx, "postgres")
		if err != nil {
			return 0, err
		}
		var n int
		err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname = $1 AND query LIKE '-- name: GetLead%'`,
			pgx.QueryExecModeExec, soakDatabase).Scan(&n)
		conn.Close(ctx)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// converges changes a lead of nobody's ten times and sees strangers read the change on every instance within two seconds.
func (s *soak) converges() {
	if s.isBroken() {
		return
	}
	state := s.p.state(s.t)
	owner := newClient(s.t, state.API, "owner")
	stranger := newClient(s.t, state.API, "stranger")
	l, status := owner.create(state.API)
	if status != http.StatusCreated {
		s.violate(nil, "create is %d after the last heal", status)
		return
	}
	var slowest time.Duration
	for revision := 2; revision <= 11; revision++ {
		for _, base := range state.APIs() {
			stranger.get(base, l.ID) // so that it is cached
		}
		status, reply := owner.do("PUT", state.API+"/api/v1/leads/"+l.ID, map[string]string{"product": strconv.Itoa(revision)})
		if status != http.StatusOK {
			s.violate(nil, "update is %d after the last heal: %s", status, reply)
			return
		}
		changed := time.Now()
		for _, base := range state.APIs() {
			for {
				got, _ := stranger.get(base, l.ID)
				if got.Revision == revision {
					break
				}
				if time.Since(changed) > 2*time.Second {
					s.violate(nil, "%v after its change, a stranger reads %+v of %s, want revision %d", time.Since(changed), got, base, revision)
					return
				}
			}
		}
		slowest = max(slowest, time.Since(changed))
	}
	s.log("strangers read a change on every instance within %v", slowest.Round(time.Millisecond))
}
